"""A trace of some steps, on request, for TensorBoard's profile tab, XProf or Perfetto."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax

from t5x_like.errors import UserError

MOST = 1000
"""Steps of one trace; longer ones become too large to open."""


def parse(text: str | None) -> range:
    """`100-110`: the steps 100 to 110; `100`: that step alone; None: none."""
    if text is None:
        return range(0)
    found = re.fullmatch(r"(\d{1,15})(?:-(\d{1,15}))?", text.strip())
    steps = range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)
    if not 0 < len(steps) <= MOST:
        raise UserError(
            f"a profile is of steps such as 100-110, at most {MOST}, not {text!r}", where=f"--profile={text}"
        )
    return steps


class Profile:
    """Starts and stops the trace.

    Args:
      steps: to trace; none, as a rule.
      folder: where it goes: FOLDER/plugins/profile/TIME/.
      start, stop: of the steps that this process does.

    Raises:
      UserError: none of the steps is among those that this process does.
    """

    def __init__(self, steps: range, folder: Path, start: int, stop: int):
        if steps and (steps.start >= stop or steps.stop <= start):
            raise UserError(
                f"the steps {steps.start} to {steps.stop - 1} are not done: the run goes from {start} to {stop}",
                where="--profile",
                help=f"--profile={start}-{min(start + 10, stop - 1)}, for example",
            )
        self._steps, self._folder, self._running = steps, folder, False

    def at(self, step: int, before: Any = None) -> str | None:
        """To be called in front of each step, and behind the last.

        Args:
          step: about to begin.
          before: arrays of the step before, waited for where the trace ends.

        Returns:
          A line to tell where a trace has been written, or why there is none.
        """
        if self._running and step not in self._steps:
            jax.block_until_ready(before)
            return self.stop()
        if not self._running and step in self._steps:
            try:
                self._folder.mkdir(exist_ok=True)
                jax.profiler.start_trace(str(self._folder))
            except (OSError, RuntimeError) as error:
                self._steps = range(0)
                return f"warning: no profile can be taken: {error}"
            self._running = True
        return None

    def stop(self) -> str | None:
        """Ends a trace that is running; says where it is."""
        if not self._running:
            return None
        self._running, first = False, self._steps.start
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError) as error:
            return f"warning: the profile could not be written: {error}"
        return f"profile of the steps from {first:,} on: tensorboard --logdir={self._folder}"
