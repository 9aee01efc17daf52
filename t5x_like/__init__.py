"""A workbench for pretraining language models in JAX: everything is a function."""

__version__ = "0.1.0"
