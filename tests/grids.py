"""A grid of every kind, and a matrix that fits them all."""

from __future__ import annotations

import numpy as np

from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding
from qir.text.encodings import write_encoding

BLOCKS = {"block_axis": 1, "block_size": 2}
KINDS = [
    *(Encoding(f"{sign}{bits}") for sign in "iu" for bits in (2, 3, 4, 5, 8, 12, 16)),
    *(Encoding(dtype, True, 0, narrow=True) for dtype in ("i3", "i4", "i8", "i11")),
    Encoding("i8", True, unsigned=True),
    Encoding("u8", True),
    Encoding("u6", axis=1),
    Encoding("i4", True, 0, **BLOCKS),
    Encoding("u8", axis=0, **BLOCKS),
    Encoding("i5", True, None, narrow=True, **BLOCKS),
    LowPowerEncoding("i4", True, 0, scale_bits=4, **BLOCKS),
    *(FloatEncoding(dtype) for dtype in ("f16", "bf16", "f8e4m3", "f8e5m2")),
    FloatEncoding("f8e4m3", axis=0),
    FloatEncoding("f8e5m2", axis=0, **BLOCKS),
]
NAMES = [write_encoding(encoding, None) for encoding in KINDS]
X = np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)
