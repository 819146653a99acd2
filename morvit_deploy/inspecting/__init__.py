"""Inspection of a checkpoint: its parts and costs, token depths, and whether its routing has degenerated."""
