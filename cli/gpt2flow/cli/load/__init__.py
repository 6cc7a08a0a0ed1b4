"""The load generator behind `gpt2flow bench`: what is sent, when, and what came of it."""
