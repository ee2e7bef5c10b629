"""ONNX files, their parity with PyTorch, and quantization. Trains nothing and decides no claim."""
