"""Conversations: messages as a prompt, and calls of tools."""
