"""Detectors and what they are made of."""
