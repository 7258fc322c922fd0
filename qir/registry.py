"""Where a pass is found by its text name: this table, the entry points of installed packages, and what is imported."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from qir.errors import QirError
from qir.extensions import listed

if TYPE_CHECKING:
    from qir.pipeline import Pass

ENTRY_POINTS = "qir.passes"
"""The entry point group in which a package lists its passes: `my-pass = "my_package.my_pass:MyPass"`."""

BUILT_IN = {
    "calibrate": "qir.passes.calibrate:Calibrate",
    "decompose": "qir.passes.decompose:Decompose",
    "expand-opaque": "qir.passes.expand_opaque:ExpandOpaque",
    "fold-batch-norm": "qir.passes.fold_batch_norm:FoldBatchNorm",
    "fold-constants": "qir.passes.fold_constants:FoldConstants",
    "fold-padding": "qir.passes.fold_padding:FoldPadding",
    "fold-qdq": "qir.passes.fold_qdq:FoldQdq",
    "fuse-integer": "qir.passes.fuse_integer:FuseInteger",
    "gather-integers": "qir.passes.gather_integers:GatherIntegers",
    "infer-shapes": "qir.passes.infer_shapes:InferShapes",
    "insert-quantizers": "qir.passes.insert_quantizers:InsertQuantizers",
    "keep-sums-apart": "qir.passes.keep_sums_apart:KeepSumsApart",
    "legalize-onnx": "qir.passes.legalize_onnx:LegalizeOnnx",
    "lift-functionals": "qir.passes.lift_functionals:LiftFunctionals",
    "load-encodings": "qir.passes.load_encodings:LoadEncodings",
    "move-transposes": "qir.passes.move_transposes:MoveTransposes",
    "propagate-encodings": "qir.passes.propagate_encodings:PropagateEncodings",
    "reduce-mean-to-pool": "qir.passes.reduce_mean_to_pool:ReduceMeanToPool",
    "snap-scales": "qir.passes.snap_scales:SnapScales",
    "spell-batch-norm": "qir.passes.spell_batch_norm:SpellBatchNorm",
    "strip-quantizers": "qir.passes.strip_quantizers:StripQuantizers",
    "unroll-modules": "qir.passes.unroll_modules:UnrollModules",
}

_imported: dict[str, type[Pass]] = {}


def register(name: str, kind: type[Pass]) -> None:
    """Make a pass usable by name. Raises QirError when another pass has the name."""
    other = _imported.get(name)
    if other is not None and (other.__module__, other.__qualname__) != (kind.__module__, kind.__qualname__):
        raise QirError(f"the pass name {name!r} is taken by {other.__module__}.{other.__qualname__}")
    _imported[name] = kind


@cache
def _installed() -> dict[str, str]:
    return listed(ENTRY_POINTS)


def pass_named(name: str) -> type[Pass] | None:
    """The pass with this text name, imported now if need be; None when there is none."""
    if name not in _imported:
        place = BUILT_IN.get(name) or _installed().get(name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        try:
            kind: type[Pass] = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            help = "repair or uninstall the package that lists it"
            raise QirError(f"the pass {name!r} is not to be had from {place}: {error}", help=help) from error
        if kind.name != name:
            raise QirError(f"the entry point {name!r} holds a pass that calls itself {kind.name!r}")
        _imported.setdefault(name, kind)
    return _imported[name]


def pass_names() -> list[str]:
    """The name of every pass, sorted; none is imported for it."""
    return sorted({*BUILT_IN, *_installed(), *_imported})


def known_passes() -> dict[str, type[Pass]]:
    """Every pass by name, sorted. Raises QirError when one can not be imported."""
    return {name: kind for name in pass_names() if (kind := pass_named(name)) is not None}
