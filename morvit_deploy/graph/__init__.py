"""The static graph: exact rewrites, layouts and selections, one module per routing."""
