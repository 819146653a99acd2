"""What runs on a remote device: needs Python 3.8, numpy and the device's own runtime, and no more of this package."""
