"""From raw text to `batch(seed, step)`."""
