"""Whatever stands in a config, a profile or a rules file: it is read, or refused in one error."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qir import QirError
from qir.passes.insert_quantizers import InsertQuantizers
from qir.placement.aimet_files import FOLDER as CONFIGS
from qir.placement.targets import FOLDER as PROFILES

JUNK: list[Any] = [
    None,
    True,
    -1,
    3.5,
    10**30,
    "",
    "True",
    "u8",
    "extends",
    [],
    [[]],
    {},
    {"": {}},
    "\ud800",
    [0, "Conv"],
]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a document with each of its keys."""
    found: list[tuple[Any, Any]] = []
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        found += [(value, key), *places(value[key])]
    return found


def mutated(document: Any, draw: random.Random) -> Any:
    """The document with something replaced, removed or added, once or twice."""
    changed = json.loads(json.dumps(document))
    for _ in range(draw.randint(1, 2)):
        holder, key = draw.choice(places(changed))
        match draw.randrange(3):
            case 0:
                holder[key] = draw.choice(JUNK)
            case 1:
                del holder[key]
            case _ if isinstance(holder, dict):
                holder[draw.choice(["extends", "op_type", "edges", "Conv", "x"])] = draw.choice(JUNK)
        if not places(changed):
            break
    return changed


@pytest.mark.parametrize("name", ["default_config", "htp_quantsim_config_v66", "htp_quantsim_config_v73"])
def test_a_mutated_config_is_read_or_refused(tmp_path: Path, name: str) -> None:
    draw, document = random.Random(name), json.loads((CONFIGS / f"{name}.json").read_text())
    refused = 0
    for _ in range(120):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(mutated(document, draw)))
        try:
            InsertQuantizers(config=str(path))
        except QirError:
            refused += 1
    assert 20 < refused < 120


@pytest.mark.parametrize("depth", [10, 100, 900, 5000])
def test_a_deep_config_is_refused(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"defaults": ' + "[" * depth + "]" * depth + "}")
    with pytest.raises(QirError):
        InsertQuantizers(config=str(path))


def damaged(text: str, draw: random.Random) -> str:
    """Text with a few lines or characters changed, removed or doubled."""
    lines = text.splitlines()
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        line = lines[at]
        cut = draw.randrange(len(line) + 1)
        lines[at : at + 1] = draw.choice(
            [
                [],
                [line, line],
                [line[:cut] + draw.choice(['"', "[", "]", "=", "3", "x", "{}"]) + line[cut:]],
                [line[:cut]],
            ]
        )
    return "\n".join(lines)


RULES = """[[rule]]
layer = "encoder.*"
op = ["MatMul", "Gemm"]
activation = "u16"
weight = "i4"
bias = "float"
symmetric = true
per_channel = false
[[rule]]
tensor = "logits"
activation = "float"
"""


@pytest.mark.parametrize(("option", "name"), [("target", "mine.toml"), ("rules", "mixed.toml")])
def test_a_damaged_toml_file_is_read_or_refused(tmp_path: Path, option: str, name: str) -> None:
    text = RULES if option == "rules" else (PROFILES / "ort-x86-vnni.toml").read_text()
    draw, path = random.Random(option), tmp_path / name
    for _ in range(150):
        path.write_text(damaged(text, draw))
        with suppress(QirError):
            InsertQuantizers(**{option: str(path)})  # type: ignore[arg-type]
