"""Labelled tasks: what they are, how their published files are read, how a model is fitted to them and judged."""
