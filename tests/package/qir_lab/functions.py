"""What users of the package call."""

import torch


def squash(x, limit=1.0):
    """Bound x smoothly. It looks at its data, which no tracer can follow."""
    return x if not x.abs().max() else torch.tanh(x / limit) * limit
