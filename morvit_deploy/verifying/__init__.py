"""Verification: comparison of a bundle with the float64 reference, and its outcome."""
