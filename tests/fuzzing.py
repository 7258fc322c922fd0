"""Mutated files and arguments for the command line: whatever they are, it ends with an exit code and no traceback."""

from __future__ import annotations

import random
import shlex
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qir.__main__ import main

EXIT_CODES = {0, 2}
"""Done; refused."""

TARGET = 'extends = "ort-x86-vnni"\n[operators]\ninteger = ["Conv", "Gemm", "Add"]\n'
RULES = '[[rule]]\nop = "Conv"\nactivation = "u16"\nweight = "i4"\n[[rule]]\nlayer = "conv"\nactivation = "float"\n'
CONFIG = '{"defaults": {"ops": {"is_output_quantized": "True"}, "params": {}}, "params": {}, "op_type": {}}'
TOKENS = ["", "-", "--", "--target", "ort-arm", "--json", "-o", "..", "%", "*", "{", "}", "a=b", "\0", "é", "9" * 40,
          "--data", "--passes", "legalize-onnx", "insert-quantizers{target=x}", "calibrate{method=}", "nan", "{{", "$x",
          "/", "net.onnx:0", "--tensor", "--summary", "conv", "i4", "fold-batch-norm,", ",", "\n"]  # fmt: skip
BYTES = [b"\x00", b"\xff" * 8, b"9" * 20, b"-1", b"[", b'"', b"$", b"%x", b"nan", b"\n"]


def small_model() -> onnx.ModelProto:
    """A convolution, a clamp and a sum."""
    weight = np.random.default_rng(0).standard_normal((2, 2, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Add", ["r", "x"], ["y"], name="add"),
    ]
    shape = ["N", 2, 3, 3]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.zeros(2, np.float32), "b")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@dataclass
class Fuzz:
    """Runs mutated commands in a folder of its own; `failures` has what ended otherwise than it should."""

    seed: int
    folder: Path
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seeds: dict[str, bytes] = {}
        model = small_model()
        files: dict[str, bytes] = {
            "net.onnx": model.SerializeToString(), "target.toml": TARGET.encode(), "rules.toml": RULES.encode(),
            "config.json": CONFIG.encode(),
        }  # fmt: skip
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        np.savez(self.folder / "data.npz", x=np.ones((2, 2, 3, 3), np.float32))
        self._run(["opt", self._path("net.onnx"), "--passes", "infer-shapes", "-o", self._path("net.qir")])
        self._run(["quantize", self._path("net.onnx"), "--data", self._path("data.npz"), "-o", self._path("q.onnx")])
        for path in self.folder.iterdir():
            self.seeds[path.name] = path.read_bytes()
        self.commands = [[self._placed(part) for part in shlex.split(line)] for line in COMMANDS]
        self.steps = 0

    def step(self) -> None:
        """One command with a mutated file, mutated arguments, or both."""
        self.steps += 1
        command = list(self.draw.choice(self.commands))
        kind = self.draw.random()
        changed = None
        read = [name for name in self.seeds if any(self._path(name) in part for part in command)]
        if kind < 0.8 and read:
            changed = self.folder / self.draw.choice(read)
            changed.write_bytes(self._damaged(self.seeds[changed.name]))
        if kind > 0.7 or not read:
            command = self._rearranged(command)
        self._run(command)
        if changed is not None:
            changed.write_bytes(self.seeds[changed.name])

    def _placed(self, part: str) -> str:
        """The argument with the names of files as paths."""
        for name in self.seeds:
            if part == name or f"={name}" in part:
                return part.replace(name, self._path(name))
        return part

    def _path(self, name: str) -> str:
        return str(self.folder / name)

    def _run(self, command: list[str]) -> None:
        out, errors = StringIO(), StringIO()
        ended = "no exit code"
        try:
            with redirect_stdout(out), redirect_stderr(errors):
                ended = str(main(command))
        except SystemExit as error:
            ended = str(error.code)
        except BaseException as error:
            ended = f"{type(error).__name__}: {error}"
        if ended not in map(str, EXIT_CODES) or "Traceback" in errors.getvalue():
            self.failures.append(f"{ended[:300]} <- {command}")

    def _damaged(self, content: bytes) -> bytes:
        """The content with bytes changed, cut out, doubled, swapped or put in."""
        data = content
        for _ in range(self.draw.choice((1, 1, 2, 4, 16))):
            start = self.draw.randrange(len(data) + 1)
            end = start + self.draw.choice((1, 1, 2, 8, 64))
            piece = data[start:end]
            others = self.draw.randbytes(end - start), b"", piece * 2, piece[::-1], self.draw.choice(BYTES)
            data = data[:start] + self.draw.choice(others) + data[end:]
        return data[: self.draw.randrange(len(data) + 1)] if self.draw.random() < 0.05 else data

    def _rearranged(self, command: list[str]) -> list[str]:
        """The command with parts dropped, doubled, swapped, cut or put in."""
        parts = list(command)
        for _ in range(self.draw.choice((1, 1, 2, 3))):
            place = self.draw.randrange(len(parts)) if parts else 0
            match self.draw.randrange(5):
                case 0:
                    del parts[place : place + 1]
                case 1:
                    parts.insert(place, self.draw.choice(TOKENS))
                case 2 if parts:
                    parts[place] = parts[place][: self.draw.randrange(len(parts[place]) + 1)]
                case 3 if parts:
                    parts[place] += self.draw.choice(TOKENS)
                case _ if parts:
                    other = self.draw.randrange(len(parts))
                    parts[place], parts[other] = parts[other], parts[place]
        return parts


COMMANDS = """
show net.onnx
show net.qir
show net.onnx --summary
verify net.qir
verify net.onnx
lint q.onnx --target ort-x86-vnni
lint q.onnx --target target.toml --json
opt net.qir --passes fold-batch-norm,legalize-onnx
opt net.onnx --passes legalize-onnx,infer-shapes
opt net.qir --passes insert-quantizers{target=ort-x86-vnni}
explain insert-quantizers net.qir --tensor *
explain insert-quantizers net.onnx
explain "insert-quantizers{target=ort-x86-vnni rules=rules.toml}" net.qir
explain "insert-quantizers{config=config.json}" net.qir
explain "insert-quantizers{target=target.toml}" net.onnx
targets
targets show ort-x86-vnni
targets show target.toml
targets diff ort-x86-vnni target.toml
passes
passes fold-batch-norm
""".strip().splitlines()
