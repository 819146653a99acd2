"""Is it the same model? Comparison with the float64 reference, and the outcome of a verification."""
