"""What runs on a remote device: Python 3.8 or newer, numpy and the runtime; no other part of this package."""
