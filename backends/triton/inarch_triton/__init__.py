"""Kernels in Triton that the GPU backends share. Not a backend: `kernels` is what they register."""
