"""Subcommands of `gpt2flow`, one per module."""
