"""AMD GPUs for Inarch."""
