"""Recorder of what a person does on the shop's screens."""
