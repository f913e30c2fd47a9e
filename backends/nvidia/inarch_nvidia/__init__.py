"""NVIDIA GPUs for Inarch."""
