"""Options and manifest entry of a Core ML package. No torch, no coremltools."""
