"""Caches and search as pure functions over `logits(params, cache, token)`."""
