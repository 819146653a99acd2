"""Tensors of other code's checkpoints: opened, unwrapped, renamed, tied."""
