"""Complete detectors on the necks of `pyramids`: M2Det, SSD and any mix."""
