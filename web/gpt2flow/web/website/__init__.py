"""Websites: their settings, requests, sessions, words and pages."""
