"""Turns a text corpus into a GPT-2 checkpoint: clean, vocabulary, train, tune."""
