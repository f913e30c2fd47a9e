"""Models as data: families describe, one decoder runs every description."""
