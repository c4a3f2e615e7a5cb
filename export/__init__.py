"""The workstation side: turn a checkpoint into a bundle whose every file has been checked. Needs torch and onnx."""
