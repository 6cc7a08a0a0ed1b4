"""Commands that make a model: train, average, export, restore and inspect."""
