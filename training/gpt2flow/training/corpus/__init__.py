"""The corpus of the agent's flows: turns, made up from a seed."""
