"""Grammar engines: answers held to a JSON schema, a regular expression, an EBNF or structural tags."""
