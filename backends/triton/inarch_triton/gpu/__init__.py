"""What the backends of GPUs share besides kernels: memory, graphs, probing, through torch's `cuda` API.

That API, and the device string "cuda", are those of every GPU that torch runs on with CUDA or ROCm.
What is one vendor's alone stays in that vendor's backend.
"""
