"""The hardware contract in plain PyTorch: the oracle of every backend, and its fallback."""
