"""The oracle, and the measures that hold a bundle to its gate."""
