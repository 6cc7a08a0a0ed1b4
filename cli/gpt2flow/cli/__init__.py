"""Command line of gpt2flow."""
