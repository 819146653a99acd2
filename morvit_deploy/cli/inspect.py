"""`morvit-deploy inspect`."""
