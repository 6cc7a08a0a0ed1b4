"""The command `gpt2flow`."""
