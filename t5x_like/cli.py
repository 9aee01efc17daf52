"""What every command shares: flags read in our own words, errors as lines, documented exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags

from t5x_like.errors import Exit, UserError, did_you_mean


def _parse(argv: Sequence[str]) -> list[str]:
    """absl's parser, with an unknown flag, a wrong value or a stray word refused in our style."""
    try:
        rest = flags.FLAGS(list(argv))
    except flags.UnrecognizedFlagError as e:
        own = [f.name for f in flags.FLAGS.get_key_flags_for_module(argv[0])] or list(flags.FLAGS)
        raise UserError(f"unknown flag --{e.flagname}", where="command line",
                        help=did_you_mean(e.flagname, own, prefix="--") + " (--help lists them all)") from None
    except flags.Error as e:
        raise UserError(str(e), where="command line", help="--help lists the flags") from None
    if len(rest) > 1:
        raise UserError(f"unexpected word {rest[1]!r}", where="command line",
                        help="every argument is a flag: --name=value")
    return rest


def run(main: Callable[[list[str]], int | None]) -> None:
    """Runs a command: `main(argv)` after flag parsing; a `UserError` becomes lines on stderr and its exit code."""

    def guarded(argv: list[str]) -> int:
        try:
            return int(main(argv) or 0)
        except UserError as e:
            print(e, file=sys.stderr)
            return int(e.code)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return int(Exit.INTERRUPTED)
        except BrokenPipeError:  # the reader of our output went away, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return int(Exit.IO_ERROR)

    def parser(argv: Sequence[str]) -> list[str]:
        try:
            return _parse(argv)
        except UserError as e:
            print(e, file=sys.stderr)
            sys.exit(int(e.code))

    app.run(guarded, flags_parser=parser)


def use_huge_pages() -> None:
    """Starts this process anew with transparent huge pages in malloc (Linux, glibc), once.

    XLA's CPU programs write large fresh buffers, and page faults are a sixth of a step of T5-small without it.
    The setting is read before `main`, so the process has to replace itself. `T5X_LIKE_NO_REEXEC=1` prevents it.
    """
    name = "GLIBC_TUNABLES"
    if sys.platform != "linux" or os.environ.get("T5X_LIKE_NO_REEXEC") or "hugetlb" in os.environ.get(name, ""):
        return
    os.environ[name] = ":".join(filter(None, (os.environ.get(name), "glibc.malloc.hugetlb=1")))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
