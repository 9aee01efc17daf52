"""The same work done by other systems, each in a process (and, if wanted, an environment) of its own."""
