"""Several processes as one: how they find each other, how they agree, and that the first speaks for all.

Every process runs the same program on its own devices; arrays span them all. What differs between processes goes
through this file: values that the first decides (`from_first`), mistakes that one of them meets (`together`), a wish
to stop (`Wishes`). With one process all of it costs nothing.

Words go by JAX's coordination service, not by the devices: it waits as long as it is told to, where collectives of a
CPU give up on a process that compiles half a minute longer than another.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import importlib.util
import itertools
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed as runtime  # for its client, as Orbax; there is no public way to it
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int32

from t5x_like.errors import Exit, UserError

T = TypeVar("T")

CONNECT_SECONDS = 300
"""How long a process waits for the others at the start."""

QUIET_SECONDS = 15.0
"""After which it says that it waits."""

HEARTBEAT_SECONDS = 60
"""A process that has not been heard of for so long counts as dead, and the others stop. Where it was the first they do
so at once."""

LEAVE_SECONDS = 15
"""How long a process that is done, or stops with an error, waits for the others to be so too."""

WAIT_SECONDS = 1800
"""How long a process that lives may keep the others waiting: they read, compile, and save at speeds of their own."""


def detect(environ: Mapping[str, str], devices: Path = Path("/dev")) -> str | None:
    """The kind of cluster that this process was started by, or None for a process of its own.

    Args:
      environ: environment variables.
      devices: the folder that shows a TPU's chips.

    Raises:
      UserError: a variable that is a number of processes or slices is none.
    """
    slurm = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    if all(name in environ for name in slurm) and _number(environ, "SLURM_NTASKS") > 1:
        return "SLURM"
    hosts = environ.get("TPU_PROCESS_ADDRESSES", environ.get("TPU_WORKER_HOSTNAMES", ""))
    if "," in hosts or _number(environ, "MEGASCALE_NUM_SLICES") > 1:
        return "GKE"
    chips = [*devices.glob("accel[0-9]*"), *devices.glob("vfio/[0-9]*")]
    if chips and importlib.util.find_spec("libtpu") and not hosts and "TPU_SKIP_MDS_QUERY" not in environ:
        return "TPU VM"  # of one host or of many: its metadata server knows
    return None


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "1")
    if not (text.isascii() and text.isdecimal()):
        raise UserError(
            f"{name} is {text!r}, and no number",
            where="environment",
            help="--distributed=off, for one process alone",
        )
    return int(text)


def connect(
    mode: str = "auto",
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> str | None:
    """Joins the other processes of this run, before JAX is first used; returns what was found, None for nothing.

    Args:
      mode: "off" joins nobody; "auto" goes by what follows, or where that is None by `detect`.
      coordinator_address: host:port of process 0, reachable from all.
      num_processes, process_id: how many there are, and which of them this is.

    Raises:
      UserError: only some of the three are given, they do not fit, or the others do not come within
        `CONNECT_SECONDS`.
    """
    given = {
        "coordinator_address": coordinator_address,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) < len(given) and (missing or mode == "off"):
        raise UserError(
            "a process joins others by all of --coordinator_address, --num_processes and --process_id, and not "
            "with --distributed=off",
            where="command line",
            help=f"missing: {', '.join(missing)}" if missing else "leave --distributed=off out",
        )
    found = None if mode == "off" else "flags" if not missing else detect(os.environ)
    if found is None:
        return None
    local: list[int] | None = None
    if found == "flags":
        _check(given)
    elif found == "SLURM":
        local = _slurm_devices(os.environ)
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours: training/interrupts.py
    _tell_of_aborts()
    try:
        with _not_waiting_in_silence(coordinator_address):
            jax.distributed.initialize(
                **given,
                local_device_ids=local,
                cluster_detection_method="deactivate" if found == "flags" else None,
                initialization_timeout=CONNECT_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=LEAVE_SECONDS,
            )
        _tell_of_aborts()  # again: now it is known which process this is
    except (RuntimeError, ValueError) as e:
        raise UserError(
            f"the processes of this run ({found}) have not found each other: {str(e).splitlines()[0][:300]}",
            where="--distributed",
            help="start all of them, with one address and a number each; or --distributed=off for this one alone",
            code=Exit.IO_ERROR,
        ) from None
    return found


@contextlib.contextmanager
def _not_waiting_in_silence(address: str | None) -> Iterator[None]:
    """Says after `QUIET_SECONDS` what is waited for; meanwhile Ctrl-C ends the process, for its handler in Python would
    wait too."""
    at = f" at {address}" if address else ""
    words = f"waiting for the other processes{at}, {CONNECT_SECONDS} seconds at most"
    timer = threading.Timer(QUIET_SECONDS, print, [words], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    timer.start()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        timer.cancel()


def _check(given: dict[str, Any]) -> None:
    host, colon, port = given["coordinator_address"].rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(
            f"{given['coordinator_address']!r} is no host:port",
            where="--coordinator_address",
            help="--coordinator_address=node-0:8476, for example",
        )
    if not 0 <= given["process_id"] < given["num_processes"]:
        raise UserError(
            f"there is no process {given['process_id']} among {given['num_processes']}",
            where="--process_id",
            help=f"0 to {given['num_processes'] - 1}",
        )


def _slurm_devices(environ: Mapping[str, str]) -> list[int] | None:
    """With one task a node, all GPUs of the node: JAX would take only the one numbered SLURM_LOCALID."""
    nodes = environ.get("SLURM_STEP_NUM_NODES", environ.get("SLURM_NNODES"))
    gpus = environ.get("SLURM_GPUS_ON_NODE", "")
    return [*range(int(gpus))] if environ["SLURM_NTASKS"] == nodes and gpus.isdigit() else None


# ---- agreement ----------------------------------------------------------------------------------


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return jax.process_index() == 0


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Meanwhile, what processes other than the first print to standard output is dropped; errors are not."""
    if is_first():
        yield
    else:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield


def gather(value: Any) -> list[Any]:
    """The value of every process (anything JSON can hold), in the order of their numbers. All must call it."""
    if jax.process_count() == 1:
        return [value]
    client, me = runtime.global_state.client, jax.process_index()
    assert client is not None
    turn = next(_TURNS)
    client.key_value_set(f"t5x_like/{turn}/{me}", json.dumps(value))
    found = []
    for number in range(jax.process_count()):
        try:
            text = client.blocking_key_value_get(f"t5x_like/{turn}/{number}", WAIT_SECONDS * 1000)
        except jax.errors.JaxRuntimeError as e:
            if "DEADLINE_EXCEEDED" not in str(e):
                raise
            raise UserError(
                f"process {number} has not answered for {WAIT_SECONDS} seconds",
                where=f"process {me}",
                help="its own output says why; the same command goes on from the last checkpoint",
                code=Exit.INTERRUPTED,
            ) from None
        found.append(json.loads(text))
    if turn:  # all have come here, so all have read what came before
        client.key_value_delete(f"t5x_like/{turn - 1}/{me}")
    return found


_TURNS = itertools.count()  # the same on all processes, as all of them call `gather` in the same order


def tells_of_others(error: Exception) -> bool:
    """Whether `gather` has failed because another process is lost or late."""
    late = isinstance(error, UserError) and error.code == Exit.INTERRUPTED
    return jax.process_count() > 1 and (late or isinstance(error, jax.errors.JaxRuntimeError))


def compiled(function: Any, *arguments: Any) -> Any:
    """The program of a jitted function for these arguments, when all processes have theirs: they may differ by
    minutes, and what the devices first exchange must come at one time."""
    program = function.lower(*arguments).compile()
    gather(None)
    return program


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What fails on one process fails on all, so that none waits for one that has gone. All must enter it, and
    what is inside must not wait for other processes."""
    if jax.process_count() == 1:
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as e:
        failure = e
    told = gather(None if failure is None else _facts(failure))
    if failure is not None:
        raise failure
    for number, facts in enumerate(told):
        if facts is not None:
            what, where, help, code = facts
            raise UserError(f"process {number}: {what}", where=where, help=help, code=Exit(code))


def _facts(error: Exception) -> list[Any]:
    if isinstance(error, UserError):
        return [error.what, error.where, error.help, int(error.code)]
    return [f"{type(error).__name__}: {error}", None, None, int(Exit.INTERNAL)]


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns on the first process (anything JSON can hold), or raises there: on all processes."""
    value: Any = None
    with together():
        if is_first():
            value = make()
    return gather(value)[0]


def same(what: str, value: str) -> None:
    """Raises `UserError` on all processes where `value` is not the same on all."""
    values = gather(value)
    others = [number for number, found in enumerate(values) if found != values[0]]
    if others:
        raise UserError(
            f"process {others[0]} has another {what} than process 0",
            where="command line",
            help="start all processes of a run with the same command",
        )


class Wishes:
    """A number of each process (0: no wish), of which all learn the largest at the same step.

    It goes around with the devices' own work and is read a step later, so nobody waits for it.
    """

    def __init__(self) -> None:
        devices = np.array(jax.devices())
        self._mesh = jax.sharding.Mesh(devices, ("devices",))
        self._local = jax.local_device_count()
        self._told: list[Int32[Array, ""]] = []

    def tell(self, number: int) -> None:
        """Sends this process's wish around. Once a step, on all processes."""
        spread = NamedSharding(self._mesh, PartitionSpec("devices"))
        mine = np.full(self._local, number, np.int32)
        wishes = jax.make_array_from_process_local_data(spread, mine, (self._mesh.size,))
        self._told.append(_largest(self._mesh)(wishes))

    def heard(self) -> int:
        """The largest wish of the step before the last that was told; 0 before there were two."""
        if len(self._told) < 2:
            return 0
        del self._told[:-2]
        return int(jax.device_get(self._told[0]))


@functools.cache
def _largest(mesh: jax.sharding.Mesh) -> Any:
    return jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))


_LOST = (
    "Gloo",
    "NCCL",
    "onnection",
    "heartbeat",
    "coordination",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "ABORTED",
)
"""Words of errors that tell of another process rather than of this one."""


def leave(error: BaseException) -> None:
    """Ends a process of several that a defect, or the loss of another, has stopped, without waiting for those that
    wait for it. After a loss it shows where its threads stand and asks to be started again."""
    if jax.process_count() == 1 or isinstance(error, (UserError, KeyboardInterrupt, SystemExit)):
        return
    text = str(error)
    # Of a collective that has failed, XLA tells by a JaxRuntimeError or a ValueError.
    xla = isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in text
    if xla and any(word in text for word in _LOST):
        sys.stdout.flush()
        _leave_lost(f"another process of this run is lost: {text.splitlines()[0][:200]}")
    sys.excepthook(type(error), error, error.__traceback__)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(Exit.INTERNAL)


def _leave_lost(what: str) -> NoReturn:
    _leave_with(_lost(what))


def _lost(what: str) -> bytes:
    state = runtime.global_state  # not jax.process_index: there may be no backend yet
    told = UserError(
        what,
        where=f"process {state.process_id} of {state.num_processes} on {socket.gethostname()}",
        help="all processes started again go on from the last checkpoint",
    )
    return f"{told}\n".encode()


def _leave_with(told: bytes, code: int = int(Exit.INTERRUPTED)) -> NoReturn:
    faulthandler.dump_traceback(file=2, all_threads=True)
    os.write(2, told)
    os._exit(code)


def _tell_of_aborts() -> None:
    """Lets abort() end this process as the loss of another does. JAX's coordination service knows no other way to
    tell of one (its `missed_heartbeat_callback` takes a status that has no type in Python), and a handler of Python's
    own would wait for the main thread, which waits for the lost one. An abort may come out of malloc, whose lock is
    then held: so the words are made now, and nothing of size is made in the handler."""
    told = _lost("another process of this run is lost, or this one cannot go on: the reason stands above")

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def aborted(number: int) -> None:
        if runtime.global_state.num_processes > 1:  # else abort() goes on, and ends the process by the signal
            _leave_with(told)

    _HANDLERS.append(aborted)
    if sys.platform != "win32":
        ctypes.CDLL(None).signal(signal.SIGABRT, aborted)


_HANDLERS = list[Any]()  # which ctypes does not keep alive
