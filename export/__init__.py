"""From the authors' checkpoint to a bundle: the model in PyTorch, its stages in ONNX, its prior in integers."""
