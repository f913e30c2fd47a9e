"""`inarch batch`: the requests of a file, as OpenAI's batch API takes them, answered into another."""
