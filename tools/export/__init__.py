"""Checkpoints as safetensors or ONNX, with a model card."""
