"""`morvit-deploy doctor`."""
