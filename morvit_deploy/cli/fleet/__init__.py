"""`bench --device-file`."""
