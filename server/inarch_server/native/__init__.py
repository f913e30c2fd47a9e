"""SGLang's native API: /generate, sessions, and the routes of whoever runs the server."""
