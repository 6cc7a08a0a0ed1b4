"""Turns: the model chooses actions, and durable steps carry them out."""
