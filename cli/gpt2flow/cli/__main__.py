"""`python -m gpt2flow.cli` is the command `gpt2flow`."""

from gpt2flow.cli.main import main

main()
