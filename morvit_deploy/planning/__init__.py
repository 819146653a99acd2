"""Calibration: from a checkpoint and images to a plan."""
