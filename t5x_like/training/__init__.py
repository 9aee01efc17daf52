"""Mesh, optimizer, step, loop, checkpoints."""
