"""The model: configuration, presets, the float64 reference, plan, precision, MACs and checkpoint."""
