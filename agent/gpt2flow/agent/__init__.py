"""The agent: flows as data, a grammar of what is legal, durable steps, a shop."""
