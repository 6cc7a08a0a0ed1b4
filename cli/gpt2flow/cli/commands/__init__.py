"""The subcommands of `gpt2flow`, one a module."""
