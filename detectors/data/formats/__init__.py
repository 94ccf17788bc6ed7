"""Readers of annotation formats: the files of a split, and their images and boxes as annotated."""
