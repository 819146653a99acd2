"""Target `trt`: TensorRT and TensorRT-RTX."""
