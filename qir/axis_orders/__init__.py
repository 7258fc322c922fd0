"""Tensors stored with their axes in another order: what that makes of operators, and which order to take."""
