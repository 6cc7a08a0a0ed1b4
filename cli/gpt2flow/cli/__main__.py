"""Entry point of `python -m gpt2flow.cli`, the same as `gpt2flow`."""

from gpt2flow.cli.main import main

main()
