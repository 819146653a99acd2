"""Target `coreml`."""
