"""Web console for the people who handle the agent's cases."""
