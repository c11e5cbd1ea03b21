"""Notebooks executed into pages that need no network."""
