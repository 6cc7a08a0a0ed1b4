"""Demo of the four shop workflows, in real server and agent processes."""
