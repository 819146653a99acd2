"""The static graph: exact rewrites, styles, and one module per routing."""
