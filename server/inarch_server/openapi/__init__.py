"""/openapi.json: the server's description of its own routes."""
