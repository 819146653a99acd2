"""coremltools, loaded when it is used, and what is known of Apple's systems."""
