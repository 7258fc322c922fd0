"""AIMET's encodings files, read and written: versions 0.6.1, 1.0.0, 2.0.0 and 2.1.0.

Scales are written as the float64 of their float32, so they read back bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qir.encodings import format_0, format_1, format_2
from qir.encodings.encoding import Encoding
from qir.encodings.entry import Entry, Place
from qir.errors import QirError, listed
from qir.files import write_text
from qir.json_documents import check_schema, load_document, refuse

SCHEMAS = {
    "0.4.0": "encodings-0.6.1", "0.5.0": "encodings-0.6.1", "0.6.1": "encodings-0.6.1",
    "1.0.0": "encodings-1.0.0", "2.0.0": "encodings-2.0.0", "2.1.0": "encodings-2.0.0",
}  # fmt: skip
"""The versions that are read, and the schema of each."""

VERSIONS = ("0.6.1", "1.0.0", "2.0.0", "2.1.0")
"""The versions that are written."""


@dataclass(frozen=True)
class TensorEncodings:
    """The encodings of a model by tensor name: activations, and parameters by their path in the model's state.

    `quantizer_args` says how they were made and `excluded_layers` what was left out; both are for people.
    """

    activations: Mapping[str, Encoding]
    parameters: Mapping[str, Encoding]
    quantizer_args: Mapping[str, Any] = field(default_factory=dict)
    excluded_layers: Sequence[str] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """What stands beside the encodings in a document; empty fields are left out."""
        return {
            **({"excluded_layers": list(self.excluded_layers)} if self.excluded_layers else {}),
            **({"quantizer_args": dict(self.quantizer_args)} if self.quantizer_args else {}),
        }


@dataclass(frozen=True)
class EncodingsFile:
    """What a file says, tensor by tensor. `version` is None for AdaRound's files, which state none."""

    version: str | None
    entries: tuple[Entry, ...]
    quantizer_args: Mapping[str, Any] = field(default_factory=dict)
    excluded_layers: tuple[str, ...] = ()

    def tensors(self, places: Mapping[str, Place] | None = None) -> TensorEncodings:
        """The encodings, for the tensors at `places` where those are known.

        Versions before 2 state neither axes nor the sign of integers: without a place, channels lie on axis 0,
        symmetric grids are signed and others unsigned. Raises QirError, with the JSON path, for what does not fit.
        """
        known = places or {}
        sections: tuple[dict[str, Encoding], dict[str, Encoding]] = {}, {}
        for entry in self.entries:
            place = known.get(entry.name)
            parameter = entry.parameter if entry.parameter is not None else place is not None and place.parameter
            sections[bool(parameter)][entry.name] = entry.encoding(place)
        return TensorEncodings(*sections, self.quantizer_args, self.excluded_layers)


def read_encodings(source: str | Path | Mapping[str, Any] | EncodingsFile) -> EncodingsFile:
    """The entries of an encodings file, or of the object that it holds.

    Raises QirError, naming the JSON path, for anything that is not exactly one of the known forms.
    """
    if isinstance(source, EncodingsFile):
        return source
    document = load_document(source)
    version = document.get("version")
    if version is None and format_0.is_flat(document):
        return EncodingsFile(None, _distinct(format_0.flat_entries(document)))
    if not isinstance(version, str) or version not in SCHEMAS:
        refuse("$.version", f"{str(version)[:40]!r} is no known version", f"known are {listed(list(SCHEMAS))}")
    # AIMET writes <prefix>_torch.encodings in the form of 0.6.1 whatever version it notes there.
    by_layer = version == "1.0.0" and isinstance(document.get("activation_encodings"), Mapping)
    check_schema(document, SCHEMAS["0.6.1" if by_layer else version])
    form = {"0": format_0, "1": format_1, "2": format_2}["0" if by_layer else version[0]]
    return EncodingsFile(version, _distinct(form.entries(document)), document.get("quantizer_args", {}),
                         tuple(document.get("excluded_layers", ())))  # fmt: skip


def _distinct(entries: Any) -> tuple[Entry, ...]:
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in found:
            refuse(entry.at, f"{entry.name} stands here and at {found[entry.name].at}")
        found[entry.name] = entry
    return tuple(found.values())


def encodings_document(tensors: TensorEncodings, version: str) -> dict[str, Any]:
    """The document of this version. Raises QirError for uncalibrated grids and those that it has no place for."""
    if version not in VERSIONS:
        raise QirError(f"encodings files have no version {version!r}", stage="encodings",
                       help=f"choose one of {', '.join(VERSIONS)}")  # fmt: skip
    check_calibrated({**tensors.activations, **tensors.parameters})
    sections = tensors.activations, tensors.parameters, tensors.settings
    if version == "0.6.1":
        return format_0.document(*sections)
    if version == "1.0.0":
        return format_1.document(*sections)
    return format_2.document(*sections, version)


def check_calibrated(encodings: Mapping[str, Encoding]) -> None:
    """Raise QirError, listing the tensors, when some have no scale yet."""
    missing = [name for name, encoding in encodings.items() if not encoding.calibrated]
    if missing:
        raise QirError(f"{len(missing)} tensors are not calibrated", stage="encodings",
                       snippet="\n".join(missing[:20]),
                       help="run compute_encodings, or the pass calibrate")  # fmt: skip


def write_encodings(path: str | Path, tensors: TensorEncodings, version: str) -> None:
    """Write an encodings file of this version, whole or not at all."""
    write_document(path, encodings_document(tensors, version))


def write_document(path: str | Path, document: Mapping[str, Any]) -> None:
    """Write a document as JSON, whole or not at all."""
    write_text(Path(path), document_text(document))


def document_text(document: Mapping[str, Any]) -> str:
    """The text of an encodings file. Raises QirError for quantizer arguments that JSON has no place for."""
    try:
        return json.dumps(document, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise QirError(f"the encodings can not be written as JSON: {error}", stage="encodings") from None
