"""The operators that qir declares beside ONNX's."""
