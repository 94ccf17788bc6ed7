"""Benchmarks of necks and detectors: cost, speed, memory and accuracy."""
