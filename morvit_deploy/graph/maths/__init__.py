"""The exact rewrites and the dispatch as pure functions."""
