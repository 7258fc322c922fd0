"""Draw docs/before_after.svg: a residual block as imported, with quantizers, and in integer operators."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from qir import Graph
from qir.pages.svg import svg

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "before_after.svg"


class Block(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        """Two convolutions beside the identity."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + x)


def graphs() -> dict[str, Graph]:
    """The graphs by title."""
    torch.manual_seed(0)
    model, data = Block().eval(), torch.randn(8, 16, 8, 8)
    quantized = qir.quantize(model, data=[data])
    return {
        "Imported": qir.import_model(model, [data]),
        "Quantized": quantized.graph,
        "As the runtime runs it": quantized.integer_graph(),
    }


def picture() -> str:
    """The SVG."""
    return svg(graphs())


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(f"written to {PICTURE.name}", file=sys.stderr)
