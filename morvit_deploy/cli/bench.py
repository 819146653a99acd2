"""`morvit-deploy bench`."""
