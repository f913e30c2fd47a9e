"""OpenAI's API: chat completions, completions and models; the words that other APIs build on."""
