"""Experiments: one Python file each, functions that return a `t5x_like.config.Run`."""
