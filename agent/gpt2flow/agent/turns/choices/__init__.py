"""Choices of the model for a message, and which of them the agent takes."""
