"""Bundles that are measured in processes of their own, on this machine's CPU."""
