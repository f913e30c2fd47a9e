"""What every API shares: from a conversation to requests of the engine, and back from its tokens."""
