"""Where the time of a bundle goes: ONNX Runtime's profiler, by step of the model, against what the machine can do."""
