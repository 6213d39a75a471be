"""Committee's server: several ONNX models behind one endpoint, fused as each request asks."""
