"""Reports on a run: HTML page, model card, curves for other tools."""
