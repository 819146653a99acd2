"""Activation ranges for int8."""
