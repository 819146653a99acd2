"""Checks of a saved Core ML package against the static graphs that it was written from."""
