"""Calibration: statistics of images, and the thresholds, buckets and activation ranges fitted to them."""
