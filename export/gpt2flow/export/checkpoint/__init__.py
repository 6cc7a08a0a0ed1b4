"""GPT-2 checkpoints in Hugging Face's format: configuration, vocabulary, weights."""
