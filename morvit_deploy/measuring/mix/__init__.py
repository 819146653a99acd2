"""Latency over the bucket mix of a set of images."""
