"""Tensors of other libraries' checkpoints: opening, unwrapping, renaming and tying them."""
