"""Text processing: cleaning, document splitting, vocabulary, encoding."""
