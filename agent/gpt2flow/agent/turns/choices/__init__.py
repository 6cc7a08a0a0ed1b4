"""Choices of the model, and which of them the agent takes."""
