"""A Core AI program as it is saved and printed: its parts, constants, values inside, and copies. No torch."""
