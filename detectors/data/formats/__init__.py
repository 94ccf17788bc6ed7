"""Readers of annotation formats: which files make up a split, and what they say, as it stands."""
