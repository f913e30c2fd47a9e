"""Routes that give vectors, scores and classes of texts: nothing is generated."""
