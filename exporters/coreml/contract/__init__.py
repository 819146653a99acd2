"""What can be asked of a Core ML package, and what its manifest says of it. No torch, no coremltools."""
