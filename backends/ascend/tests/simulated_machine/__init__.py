"""A machine with a simulated NPU, as the engine finds it."""
