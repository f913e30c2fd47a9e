"""Where a program's generation calls go: an engine of our own, or a server that speaks an API."""
