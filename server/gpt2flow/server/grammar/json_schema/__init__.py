"""JSON schemas, translated to what the grammar compiler enforces exactly."""
