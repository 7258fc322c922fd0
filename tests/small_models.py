"""Small models, each with something in it that a frontend can get wrong."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.model_table import Tokens, takes


@takes((4, 6))
class Activations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc(x)) + F.silu(x) * F.hardswish(x)
        x = F.leaky_relu(F.dropout(torch.tanh(x), 0.5, self.training), 0.2)
        return F.log_softmax(F.elu(F.relu(x) - x.sigmoid()), dim=-1)


@takes((4, 6), (4, 6))
class Arithmetic(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        a = 2 - x * 3 + 1.5 / (y.abs() + 1)
        b = torch.add(x, y, alpha=0.3) - torch.rsub(x, y) + torch.sub(x, y, alpha=2)
        c = torch.clamp(a, -1, 1) ** 2 + torch.where(x > y, x, y) + 2.0 ** x.clamp(max=1.0)
        d = torch.maximum(x, y) / 4 - torch.minimum(x, -y)
        return a, torch.cat([b, c, x], dim=1), torch.stack((c, d), dim=-1), d * d


@takes(Tokens(11, 5))
class TiedHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.embedding(tokens)))


@takes((4, 6))
class OwnParameters(nn.Module):
    """Parameters read without a layer, one of them owned by a layer too, and one read by nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(6))
        self.unread = nn.Parameter(torch.randn(2))
        self.frozen = nn.Parameter(torch.randn(6), requires_grad=False)
        self.fc = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.fc(x * self.gain), self.fc.weight.t()) + self.frozen


@takes((4, 6))
class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.randn(6))
        self.register_buffer("hidden", torch.randn(6), persistent=False)
        self.register_buffer("unread", torch.arange(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.kept + self.hidden


@takes((6,))
class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stack = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ReLU(), nn.Identity())) for _ in "ab"
        )
        self.table = nn.ModuleDict({"last": nn.Linear(6, 3)})

    def forward(self, x: Tensor) -> Tensor:
        for block in self.stack:
            x = block(x) + x
        return self.table["last"](x)


@takes((4, 6))
class NestedOutputs(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        y = x.relu()
        return {"scores": [y, x + 1], "inner": {"same": y, "input": x}, "none": None, "pair": (y * 2, "name")}


@takes((4, 6))
class Sizes(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = x.view(x.size(0), -1)
        joined = x.reshape(x.shape[0] * x.shape[1], x.shape[-1])
        heads = x.view(x.size(0), x.size(1), 2, x.shape[-1] // 2).transpose(1, 2)
        return flat * 2, joined + 1, heads.contiguous().flatten(1)


@takes((4, 6))
class InPlace(nn.Module):
    """In-place calls on tensors that are read again, in the order that the user wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.fc(x)
        before = x + 2
        y = self.act(x)
        z = x + before
        also_z = z
        z += x
        z.mul_(3).add_(before)
        return also_z + y, F.hardtanh(before, inplace=True) - before + x


def double(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output * 2


@takes((6,))
def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[0].register_forward_hook(double)
    return model


@takes((6,), pickles=False)
def weight_normed() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 6))


@takes((4, 6))
class DropoutOrder(nn.Module):
    """Random numbers are drawn in the order of the calls, not in the order of use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Dropout(0.3), nn.Dropout(0.6)

    def forward(self, x: Tensor) -> Tensor:
        kept, other = self.first(x), self.second(x + 1)
        third = F.dropout(x, 0.5, self.training)
        return other * third - kept


@takes((6, 5))
class Recurrent(nn.Module):
    """A layer that nothing lowers, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 4, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states, (hidden, _) = self.lstm(x)
        backwards, _ = self.lstm(x.flip(1))
        return self.head(states + backwards).relu(), hidden[-1]


@takes((3, 6, 6))
class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1)
        self.down = nn.Conv2d(4, 2, 3, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.interpolate(F.relu(self.up(x)), scale_factor=2.0))
