"""Measuring TensorRT engines on the local GPU."""
