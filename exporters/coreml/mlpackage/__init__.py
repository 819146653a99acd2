"""From traced functions to one `.mlpackage`."""
