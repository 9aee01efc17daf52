"""Trains with several processes on one machine, each with simulated CPU devices: a pod, debugged on a laptop.

  python launch/local.py --processes=2 --devices=4 --config=t5/small:debug --data=DIR --workdir=runs/a
  python launch/local.py --processes=2 --devices=4 --dry_run --config=t5/small:debug --data=DIR --workdir=runs/a

--processes     how many                                        [1]
--devices       devices of each process                         [1]
--max_restarts  start all of them again, at most so many times, unless they are done, were told to stop, or say by
                their exit code that they would stop again      [0]
--dry_run       print the commands, and run nothing

All other flags go to t5x_like.train as they stand. Each line of output begins with the number of its process. SIGTERM
and Ctrl-C are passed on: the processes agree on a step, save, and leave, and are not started again. When one fails, the
others are stopped. The exit code is the worst of theirs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
USAGE, INTERRUPTED = 64, 75  # t5x_like.errors.Exit
HOPELESS = (64, 65, 70, 73, 76, 77)
"""By these training says that the same command would end the same way."""
OURS = {
    "--cpu_devices": "--devices=4",
    **dict.fromkeys(("--coordinator_address", "--num_processes", "--process_id"), "--processes=2"),
}
"""Flags of training that differ between the processes, and what is to be said here in their place."""
GRACE_SECONDS = 20.0
"""From the failure of one process until the others, which wait for it, are killed."""


def commands(processes: int, devices: int, address: str, flags: Sequence[str]) -> list[list[str]]:
    """The command of each process."""
    program = [sys.executable, "-m", "t5x_like.train", *flags, f"--cpu_devices={devices}"]
    if processes == 1:
        return [program]
    shared = [f"--coordinator_address={address}", f"--num_processes={processes}"]
    return [[*program, *shared, f"--process_id={number}"] for number in range(processes)]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def worst(codes: Sequence[int]) -> int:
    """The exit code of all: a real failure before one that follows from it, an interrupt before success."""
    failed = [code for code in codes if code not in (0, INTERRUPTED)]
    own = [code for code in failed if code > 0]  # below zero: by a signal, as those who lost a peer
    if failed:
        return own[0] if own else 128 - failed[0]
    return max(codes, default=0)


def run(programs: Sequence[Sequence[str]]) -> tuple[int, bool]:
    """Runs all until they end; returns the exit code, and whether a signal had told them to."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    children: list[subprocess.Popen[str]] = []
    ended, told = threading.Event(), threading.Event()

    def forward(number: int, frame: object) -> None:
        told.set()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    threads = []
    for number, program in enumerate(programs):
        # A session of its own: Ctrl-C comes once, from here, and not a second time from the terminal.
        child = subprocess.Popen(
            program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
        children.append(child)
        threads.append(threading.Thread(target=_relay, args=(number, child.stdout, ended), daemon=True))
        threads[-1].start()

    failed_at = None
    while any(child.poll() is None for child in children):
        ended.wait(timeout=1.0)
        ended.clear()
        codes = [child.poll() for child in children]
        if failed_at is None and any(code not in (None, 0, INTERRUPTED) for code in codes):
            failed_at = time.monotonic()
            first = next(n for n, code in enumerate(codes) if code not in (None, 0, INTERRUPTED))
            print(f"local: process {first} has failed ({codes[first]}); stopping the others", flush=True)
        if failed_at is not None and time.monotonic() - failed_at > GRACE_SECONDS:
            for child in children:
                if child.poll() is None:
                    child.kill()
    for thread in threads:
        thread.join(timeout=5.0)
    for number, handler in before.items():
        signal.signal(number, handler)
    return worst([child.returncode for child in children]), told.is_set()


def supervise(programs: Callable[[], Sequence[Sequence[str]]], restarts: int) -> int:
    """`run`, again unless it is done, was told to stop or would stop again; returns the last exit code.

    Args:
      programs: makes the commands, each time anew: a port may still be held.
      restarts: at most.
    """
    while True:
        code, told = run(programs())
        if code == 0 or code in HOPELESS or told or restarts == 0:
            return code
        restarts -= 1
        print(f"local: ended with {code}; starting again, {restarts} more times at most", flush=True)


def _relay(number: int, stream: IO[str], ended: threading.Event) -> None:
    for line in stream:
        print(f"{number}| {line}", end="", flush=True)
    ended.set()


def main(arguments: Sequence[str]) -> int:
    """Reads the flags, runs or prints the commands."""
    own, rest = {"--processes": "1", "--devices": "1", "--max_restarts": "0"}, []
    dry_run = False
    for argument in arguments:
        name, _, value = argument.partition("=")
        if argument in ("-h", "--help"):
            print(__doc__)
            return 0
        if argument in ("--dry_run", "--dry_run=true"):
            dry_run = True
        elif name in own:
            own[name] = value
        elif name in OURS:
            print(f"error: {name} is given to each process by this program: {OURS[name]}", file=sys.stderr)
            return USAGE
        elif argument != "--":
            rest.append(argument)
    for name, value in own.items():
        least = 0 if name == "--max_restarts" else 1
        if not re.fullmatch("[0-9]{1,4}", value) or int(value) < least:
            print(f"error: {name} wants a whole number from {least} to 9999: {name}=2", file=sys.stderr)
            return USAGE
    sys.path.insert(0, str(ROOT))  # where a script finds its own folder alone
    from launch.common import train_command
    from t5x_like.errors import UserError

    try:
        train_command(rest, others=[name.removeprefix("--") for name in own])
    except UserError as e:
        print(e, file=sys.stderr)
        return int(e.code)
    processes, devices, restarts = (int(value) for value in own.values())

    def programs() -> list[list[str]]:
        return commands(processes, devices, f"localhost:{free_port()}", rest)

    if dry_run:
        print("\n".join(shlex.join(program) for program in programs()))
        return 0
    return supervise(programs, restarts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
