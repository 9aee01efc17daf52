"""What has to be settled before JAX is imported: a plan uses no accelerator of the machine that it is made on."""

from __future__ import annotations

import os

from t5x_like.planning.topologies import Topology


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
            "TPU_MIN_LOG_LEVEL": "4",
            "TPU_STDERR_LOG_LEVEL": "4",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a program for other devices cannot be stored
    if topology.chip.platform == "cpu":
        jax.config.update("jax_num_cpu_devices", topology.devices)
