"""x86-64 CPUs for Inarch, by kernels for AVX2 and AVX-512."""
