"""The same bundles on several devices, in one report."""
