"""The demo: the shipped model carries out all four workflows, in real processes."""
