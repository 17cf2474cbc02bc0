"""What runs the network: torch, a CUDA graph, ncnn, ONNX; the choice among them, and proof that they agree."""
