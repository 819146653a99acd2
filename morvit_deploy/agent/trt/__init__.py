"""TensorRT on a device: building engines and running them through the CUDA driver."""
