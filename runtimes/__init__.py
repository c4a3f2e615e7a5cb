"""The device side: run, adapt and check a bundle. Nothing here needs torch or onnx."""
