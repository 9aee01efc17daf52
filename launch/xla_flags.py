"""XLA flags by platform: what large runs set, in one place; the launchers take one with --xla_flags=NAME.

  python -m launch.xla_flags                    the sets and what they are for
  python -m launch.xla_flags --set=gpu-overlap  NAME=value, for `env`

None of them changes what is computed. A wrong flag ends the program at its start, so each set is tried against the
compiler it is for (tests/launch). Where they come from: AI-Hypercomputer/maxtext, benchmarks/xla_flags_library.py (TPU)
and its GPU scripts; NVIDIA/JAX-Toolbox, rosetta/docs/GPU_performance.md.
"""

from __future__ import annotations

import dataclasses
import shlex

from absl import flags

from t5x_like import cli
from t5x_like.errors import UserError, did_you_mean
from t5x_like.planning.environment import LIBTPU_STACK


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlagSet:
    """Attributes: `variable` of the environment that carries them; `purpose` in a line."""

    variable: str
    purpose: str
    flags: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        return {self.variable: " ".join(self.flags)}


SETS = {
    "tpu-stack": FlagSet(
        variable="LIBTPU_INIT_ARGS",
        purpose="the compiler's threads get 1 MiB of stack in place of 64 KiB, which T5-11B overflows (libtpu 0.0.42)",
        flags=(LIBTPU_STACK,),
    ),
    "tpu-overlap": FlagSet(
        variable="LIBTPU_INIT_ARGS",
        purpose="gathers and reductions of weights and gradients run beside the matrix products (fsdp, data)",
        flags=(
            "--xla_tpu_enable_async_collective_fusion=true",
            "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
            "--xla_tpu_enable_async_collective_fusion_multiple_steps=true",
            "--xla_tpu_overlap_compute_collective_tc=true",
            "--xla_enable_async_all_gather=true",
        ),
    ),
    "tpu-data": FlagSet(
        variable="LIBTPU_INIT_ARGS",
        purpose="gradients of copies are summed as they come (data axis, several slices)",
        flags=(
            "--xla_tpu_enable_data_parallel_all_reduce_opt=true",
            "--xla_tpu_data_parallel_opt_different_sized_ops=true",
        ),
    ),
    "tpu-vmem": FlagSet(
        variable="LIBTPU_INIT_ARGS",
        purpose="more of the chip's memory for one operation (dense models on v6e)",
        flags=("--xla_tpu_scoped_vmem_limit_kib=98304",),
    ),
    "gpu-overlap": FlagSet(
        variable="XLA_FLAGS",
        purpose="collectives run beside kernels and are joined to large ones (fsdp, data on several nodes)",
        flags=(
            "--xla_gpu_enable_latency_hiding_scheduler=true",
            "--xla_gpu_enable_pipelined_all_gather=true",
            "--xla_gpu_enable_pipelined_reduce_scatter=true",
            "--xla_gpu_enable_pipelined_all_reduce=true",
            "--xla_gpu_all_gather_combine_threshold_bytes=1073741824",
            "--xla_gpu_reduce_scatter_combine_threshold_bytes=1073741824",
            "--xla_gpu_all_reduce_combine_threshold_bytes=134217728",
        ),
    ),
}


def environment(name: str | None) -> dict[str, str]:
    """The environment that carries a set; several are joined with commas; none for None or "".

    Raises:
      UserError: an unknown set, or sets of two platforms.
    """
    found: dict[str, str] = {}
    for part in filter(None, (name or "").split(",")):
        if part not in SETS:
            raise UserError(f"no set of flags {part!r}", where="--xla_flags", help=did_you_mean(part, SETS))
        for variable, value in SETS[part].environment.items():
            found[variable] = f"{found[variable]} {value}" if variable in found else value
    if len(found) > 1:
        raise UserError(f"{name} are flags of two platforms", where="--xla_flags")
    return found


FLAGS = flags.FlagValues()
_SET = flags.DEFINE_string("set", None, "name of a set, or several with commas", flag_values=FLAGS)


def main(argv: list[str]) -> int:
    del argv
    if _SET.value:
        for variable, value in environment(_SET.value).items():
            print(f"{variable}={shlex.quote(value)}")
        return 0
    for name, chosen in SETS.items():
        print(f"{name}: {chosen.purpose}\n  {chosen.variable}={shlex.quote(' '.join(chosen.flags))}")
    return 0


if __name__ == "__main__":
    cli.run(main, FLAGS)
