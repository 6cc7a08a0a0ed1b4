"""The GPT-2 and its training loop."""
