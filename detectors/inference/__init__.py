"""Trained detectors made fast, combined over scales and exported."""
