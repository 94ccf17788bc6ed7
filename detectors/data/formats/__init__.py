"""Readers of annotation formats, one file each."""
