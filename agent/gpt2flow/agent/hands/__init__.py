"""Work on the shop's screens in a browser, replayed from recordings."""
