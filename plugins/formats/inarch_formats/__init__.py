"""How models write calls of tools, and how they set reasoning apart."""
