"""Translation of a request's fields to a call of the server."""
