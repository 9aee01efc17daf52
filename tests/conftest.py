"""Every test runs on eight simulated CPU devices; code that asks for one device takes the first."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", 8)
