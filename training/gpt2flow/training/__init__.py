"""Training of a GPT-2 checkpoint from a text corpus."""
