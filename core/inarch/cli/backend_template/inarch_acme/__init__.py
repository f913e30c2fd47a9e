"""Inarch on Acme's hardware."""
