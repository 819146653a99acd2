"""`morvit-deploy demo`."""
