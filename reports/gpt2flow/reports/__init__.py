"""Reports that open in a browser: one page, one way to plot."""
