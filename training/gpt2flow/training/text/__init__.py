"""Text as tokens: cleaning, vocabulary, encoding."""
