"""Programs of these tests run a few dozen times: XLA may leave out what takes it longest."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def compile_fast():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
