"""Log and traces of the agent."""
