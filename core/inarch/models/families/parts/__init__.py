"""What families are made of: readers of the sections that their configs share, and tables of names."""
