"""The hardware contract: what a backend gives, and the plain PyTorch reference of all of it."""
