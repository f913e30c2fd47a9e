"""OpenAI's /v1/responses: answers that are kept, so that a conversation can go on from one."""
