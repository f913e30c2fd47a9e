"""Intel CPUs for Inarch."""
