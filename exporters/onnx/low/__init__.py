"""ONNX graphs below fp32: fp16, bf16 and int8."""
