"""SIGTERM and Ctrl-C as a wish that the loop reads between two steps; a second one leaves at once."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

from t5x_like.errors import Exit


class Interrupts:
    """Context manager; `raised` is the name of the signal that has come, or None."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.raised: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.raised is not None:  # a save under way stays unfinished, which the next start clears away
            if sys.stdout.isatty():
                os.write(1, b"\x1b[?25h\n")  # the cursor that the progress bar hid
            os.write(2, f"{name} again: left at once\n".encode())
            os._exit(Exit.INTERRUPTED)
        self.raised = name
        os.write(2, f"\n{name}: finishing the step and saving; once more leaves at once\n".encode())
