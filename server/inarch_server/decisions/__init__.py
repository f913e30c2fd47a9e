"""/v1/decisions: questions answered with the model's own probabilities."""
