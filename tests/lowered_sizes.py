"""More of `tests.lowered_calls`: what makes tensors of numbers alone."""

from __future__ import annotations

import torch

from tests.lowered_calls import Call, call

SIZE_CALLS: dict[str, list[Call]] = {
    "arange": [call(5), call(1, 8, 2), call(5, 1, -2), call(4.0), call(0, 1, 0.25), call(1, 4, dtype=torch.float64)],
    **{name: [call(2, 3), call((2, 3)), call(4, dtype=torch.int64)] for name in ("zeros", "ones")},
    "full": [call((2, 3), 1.5), call([2], 3), call((2,), True), call((3,), 2, dtype=torch.float16)],
}
