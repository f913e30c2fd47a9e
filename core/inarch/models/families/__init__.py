"""The families that come with the core, and what they share in reading a config."""
