"""A GPT-2 checkpoint in Hugging Face's format: configuration, vocabulary, weights."""
