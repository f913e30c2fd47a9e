"""The HTTP front end of Inarch: OpenAI's and SGLang's endpoints, metrics and a page to chat on."""
