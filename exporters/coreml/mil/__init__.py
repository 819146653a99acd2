"""Reading, interpreting and proving ML programs (MIL) without Core ML."""
