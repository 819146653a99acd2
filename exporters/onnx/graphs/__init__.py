"""ONNX graphs: traced, joined, written, read."""
