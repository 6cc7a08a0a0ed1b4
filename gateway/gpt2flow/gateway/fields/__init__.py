"""Fields of the requests, and the refusal of those that are invalid."""
