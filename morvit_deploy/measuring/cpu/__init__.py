"""Measures bundles on this machine's CPU, each in a process of its own."""
