"""Results of the server in OpenAI's forms."""
