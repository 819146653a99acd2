"""Measuring on a board over SSH."""
