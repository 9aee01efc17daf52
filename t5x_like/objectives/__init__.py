"""Pretraining objectives, one file each: the host half (NumPy) beside the device half (JAX)."""
