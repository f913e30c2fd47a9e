"""From conversations and texts to token ids, and from token ids back to text: no model, no device."""
