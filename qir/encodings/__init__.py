"""Encodings: the grids on which the values of tensors lie, and AIMET's files of them."""
