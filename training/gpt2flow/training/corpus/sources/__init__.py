"""Sources of the corpus: phrases, lexicons and labelled messages, read from files."""
