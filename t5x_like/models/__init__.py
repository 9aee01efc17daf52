"""Pure-functional Flax models, one file a family."""
