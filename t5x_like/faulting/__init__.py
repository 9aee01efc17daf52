"""The fault battery: faults are injected into real runs of a tiny model, and what comes of them is judged."""
