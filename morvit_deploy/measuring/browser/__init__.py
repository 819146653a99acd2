"""Measuring in a browser, on this machine or on a phone."""
