"""Access to the console: people, sessions, checks of requests."""
