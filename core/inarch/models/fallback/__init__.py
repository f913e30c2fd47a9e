"""Models that no family describes: run by transformers' own code, with our paged attention in it."""
