"""Parts of the structure proof of a Core AI asset."""
