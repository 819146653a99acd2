"""Layouts, exact rewrites and dispatch as pure functions."""
