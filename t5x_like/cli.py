"""What every command shares: flags read in our own words, errors as lines, documented exit codes."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NoReturn

from absl import flags

from t5x_like.errors import Exit, UserError, did_you_mean


def parse(values: flags.FlagValues, argv: Sequence[str], where: str = "command line") -> list[str]:
    """absl's parser, with an unknown flag, a wrong value or a stray word refused in our style."""
    try:
        rest = values(list(argv))
    except flags.UnrecognizedFlagError as e:
        raise UserError(
            f"unknown flag --{e.flagname}",
            where=where,
            help=did_you_mean(e.flagname, list(values), prefix="--"),
        ) from None
    except flags.Error as e:
        raise UserError(str(e), where=where, help="--help lists the flags") from None
    if len(rest) > 1:
        raise UserError(
            f"unexpected word {rest[1]!r}",
            where=where,
            help="every argument is a flag: --name=value",
        )
    return rest


def _help(document: str, values: flags.FlagValues) -> str:
    lines = [document.strip(), "", "flags:"]
    for name in values:
        flag = values[name]
        if name == flag.name and name not in ("flagfile", "undefok"):
            default = "" if flag.default in (None, [], False) else f" [{flag.default}]"
            lines += textwrap.wrap(
                f"--{name}{default}  {flag.help}", 100, initial_indent="  ", subsequent_indent="        "
            )
    return "\n".join(lines)


def run(
    main: Callable[[list[str]], int | None], values: flags.FlagValues, patience: float | None = None
) -> NoReturn:
    """Runs a command and exits: `main(argv)` after its flags are read; a `UserError` becomes lines on stderr.

    Each command keeps its flags in a `FlagValues` of its own, so that any two can be imported together.

    Args:
      main: returns the exit code; None stands for 0.
      values: its flags.
      patience: seconds after which the process leaves though threads of it are still at work; None waits for them.
    """
    try:
        if {"--help", "-h", "-help"} & set(sys.argv[1:]):
            print(_help(sys.modules["__main__"].__doc__ or "", values))
            code = int(Exit.DONE)
        else:
            code = int(main(parse(values, sys.argv)) or 0)
        sys.stdout.flush()
    except UserError as e:
        print(e, file=sys.stderr)
        code = int(e.code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = int(Exit.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = int(Exit.IO_ERROR)
    if patience is not None:
        timer = threading.Timer(patience, os._exit, [code])
        timer.daemon = True
        timer.start()
    sys.exit(code)


def read_step(text: str) -> int | Literal["latest", "best"]:
    """`latest`, `best` or a number."""
    if text == "latest" or text == "best":
        return text
    if not (text.isascii() and text.isdecimal() and len(text) < 17):
        raise UserError(f"a checkpoint is latest, best or a step, not {text!r}", where=f"--checkpoint={text}")
    return int(text)


def use_huge_pages() -> None:
    """Starts this process anew with transparent huge pages in malloc (Linux, glibc), once.

    XLA's CPU programs write large fresh buffers, and page faults are a sixth of a step of T5-small without it.
    The setting is read before `main`, so the process has to replace itself. `T5X_LIKE_NO_REEXEC=1` prevents it.
    """
    name = "GLIBC_TUNABLES"
    if (
        sys.platform != "linux"
        or os.environ.get("T5X_LIKE_NO_REEXEC")
        or "hugetlb" in os.environ.get(name, "")
    ):
        return
    os.environ[name] = ":".join(filter(None, (os.environ.get(name), "glibc.malloc.hugetlb=1")))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


MOST_CPU_DEVICES = 4096
"""A start with more takes minutes, without a word."""


def split_cpu(devices: int | None) -> None:
    """--cpu_devices: makes so many devices of the CPU, before JAX is first used; None leaves it one."""
    if devices is not None:
        if devices > MOST_CPU_DEVICES:
            raise UserError(
                f"{devices} devices of one CPU are too many: at most {MOST_CPU_DEVICES}",
                where="--cpu_devices",
            )
        import jax

        jax.config.update("jax_num_cpu_devices", devices)


CACHE_BYTES = 1 << 30
"""Compiled programs are kept up to this size; those not used for longest go first."""


def keep_compiled_programs() -> None:
    """A cache for XLA, so that a second start need not compile again. It holds code that this user's jax runs: so
    it lies in the user's own cache folder, never in a run directory, which may come from somebody else."""
    import jax
    from absl import logging

    logging.set_verbosity(logging.FATAL)  # Orbax logs what we report ourselves
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "t5x_like" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
