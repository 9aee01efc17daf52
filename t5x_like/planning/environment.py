"""What has to be settled before JAX is imported: a plan uses no accelerator of the machine that it is made on."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence

from t5x_like.errors import Exit, UserError
from t5x_like.planning.topologies import Topology

IN_CHILD = "T5X_LIKE_PLAN_CHILD"

LIBTPU_STACK = "--fibers_default_thread_stack_size=1048576"
"""For LIBTPU_INIT_ARGS: the compiler's threads have 64 KiB of stack, and libtpu 0.0.42 overflows them where it weighs
matrix products fused into each other (T5-11B on v5e and v5p: SIGSEGV in SpatialMajorConvolution)."""


def check(topology: Topology) -> None:
    """Raises `UserError` where nothing can be compiled for this topology here."""
    if topology.chip.platform == "tpu" and importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "libtpu, the compiler for TPUs, is not installed",
            where=f"--topology={topology.name}",
            help="pip install '.[plan]', or --formula for an estimate without a compiler",
        )


def prepare(topology: Topology) -> None:
    """Environment and flags that have to stand before jax is imported: no accelerator of this machine is touched,
    no metadata server is asked where we are, and several of us may load libtpu at a time."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if topology.chip.platform == "tpu":
        os.environ |= {
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": topology.accelerator_type,
            "TPU_WORKER_HOSTNAMES": "localhost",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "LIBTPU_INIT_ARGS": f"{LIBTPU_STACK} {os.environ.get('LIBTPU_INIT_ARGS', '')}".strip(),
            "TPU_MIN_LOG_LEVEL": "4",
            "TPU_STDERR_LOG_LEVEL": "4",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a program for other devices cannot be stored
    if topology.chip.platform == "cpu":
        jax.config.update("jax_num_cpu_devices", topology.devices)


def in_child(arguments: Sequence[str]) -> int:
    """Runs the same command in a process of its own, and returns its exit code: a TPU's compiler that gives up by
    dying then ends in words.

    Raises:
      UserError: the child was killed by a signal, or its compiler refuses a flag.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "t5x_like.plan", *arguments],
        env={**os.environ, IN_CHILD: "1"}, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        _, said = child.communicate()
    finally:  # nothing goes on compiling when this process is told to end
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode >= 0:
        if unknown := re.search(r"^ERROR: (Unknown command line flag .*)", said, re.MULTILINE):
            raise UserError(f"libtpu does not start: {unknown[1]}", where="LIBTPU_INIT_ARGS")
        sys.stderr.write(said)
        return child.returncode
    name = signal.Signals(-child.returncode).name
    first = next((line for line in said.splitlines() if line.startswith("***")), "")
    raise UserError(
        f"the compiler died ({name}){': ' + first.strip('* ')[:200] if first else ''}",
        where="libtpu",
        help="another mesh, microbatches or remat is another program; --formula works without it",
        code=Exit.INTERNAL,
    )
