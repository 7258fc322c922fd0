"""Small convolutional networks, which integer kernels compute from end to end."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.model_table import takes


@takes((3, 8, 8), cnn=True)
class ReusedLayers(nn.Module):
    """One ReLU and one pooling, called again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.relu, self.pool, self.head = nn.ReLU(), nn.MaxPool2d(2), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.a(x)))
        x = self.relu(self.b(x) + x)
        x = self.pool(x)
        return self.head(x.view(x.size(0), -1))


@takes((4, 8, 8))
class CalledTwice(nn.Module):
    """One convolution and one batch norm, called twice: its statistics move twice a step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        return self.norm(self.conv(x)) + x


def block(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU6."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs), act=nn.ReLU6(inplace=True)))


@takes((3, 12, 12), cnn=True)
class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8, 3, stride=2)
        self.expand, self.depthwise = block(8, 24, 1), block(24, 24, 3, groups=24)
        self.project, self.norm = nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.norm(self.project(self.depthwise(self.expand(x))))
        return self.head(x.mean([2, 3]))


@takes((4, 8, 8), cnn=True)
class Fire(nn.Module):
    """Branches that end in a Relu and are put side by side; the last part of them is not clamped."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(4, 4, 1)
        self.narrow, self.wide = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.mixed = nn.Conv2d(12, 4, 3, dilation=2, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.squeeze(x))
        y = torch.cat([self.act(self.narrow(x)), self.act(self.wide(x))], 1)
        return torch.cat([self.mixed(y), x], 1)


@takes((8, 6, 6), cnn=True)
class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        nn.init.ones_(self.fc1.bias)
        self.out = nn.Conv2d(8, 8, 3, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.sigmoid(self.fc2(F.relu(self.fc1(self.pool(x)))))
        return self.out(scale * x)


@takes((3, 9, 9), cnn=True)
class Poolings(nn.Module):
    """Average pooling with padding, and to sizes that do not divide."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.padded = nn.AvgPool2d(3, stride=2, padding=1)
        self.inside = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.head = nn.Linear(6 * 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inside(self.padded(F.leaky_relu(self.conv(x), 0.1)))
        return self.head(F.adaptive_avg_pool2d(x, (3, 2)).flatten(1))


@takes((3, 8, 8), cnn=True)
class OwnKernel(nn.Module):
    """A convolution without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.offset = nn.Parameter(torch.randn(5, 3, 3, 3)), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.conv2d(x, self.kernel, self.offset, stride=2, padding=1))


@takes((4, 20), cnn=True)
def sequence() -> nn.Module:
    """Convolutions along one axis."""
    return nn.Sequential(
        nn.Conv1d(4, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3, dilation=2, groups=4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


@takes((2, 6, 6, 6), cnn=True)
def volume() -> nn.Module:
    """Convolutions along three axes."""
    return nn.Sequential(nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.ReLU(), nn.AvgPool3d(2), nn.Conv3d(6, 4, 1))


@takes((12,), cnn=True)
def perceptron() -> nn.Module:
    """Linear layers."""
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16, bias=False), nn.ReLU6(), nn.Linear(16, 4))
