"""A compiler for neural-network quantization: what you simulate is what you ship."""

from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING
from typing import Any as _Any

# In a checkout passes/, frontends/ and backends/ sit beside this folder; in an installed package they sit inside it.
if not (_Path(__file__).parent / "passes").is_dir():
    __path__.append(str(_Path(__file__).parent.parent))

from qir.api.keras import register_layers as _register_layers
from qir.api.preparation import prepare_model as prepare_model
from qir.api.quantize import Quantized as Quantized
from qir.api.quantize import import_model as import_model
from qir.api.quantize import quantization as quantization
from qir.api.quantize import quantize as quantize
from qir.errors import Loc as Loc
from qir.errors import QirError as QirError
from qir.graph import Graph as Graph
from qir.graph import Node as Node
from qir.graph import Value as Value
from qir.pipeline import Pass as Pass
from qir.pipeline import Pipeline as Pipeline
from qir.text.parsing import parse as parse

if TYPE_CHECKING:
    from qir.api.analyze import analyze as analyze
    from qir.api.bisect import bisect as bisect
    from qir.api.validation import Finding as Finding
    from qir.api.validation import ModelValidator as ModelValidator
    from qir.api.view import view as view
    from qir.pages.stages import Stages as Stages
    from qir.reasons import Reason as Reason
    from qir.reasons import explain as explain
    from qir.simulation.analyzer import CallbackFunc as CallbackFunc
    from qir.simulation.analyzer import QuantAnalyzer as QuantAnalyzer
    from qir.simulation.checkpoint import load_checkpoint as load_checkpoint
    from qir.simulation.checkpoint import save_checkpoint as save_checkpoint
    from qir.simulation.quantsim import QuantizationSimModel as QuantizationSimModel
    from qir.simulation.schemes import QuantizationDataType as QuantizationDataType
    from qir.simulation.schemes import QuantScheme as QuantScheme
    from qir.simulation.tuning import correct_biases as correct_biases

_ON_USE = {
    "qir.api.analyze": ["analyze"],
    "qir.api.bisect": ["bisect"],
    "qir.api.view": ["view"],
    "qir.reasons": ["Reason", "explain"],
    "qir.simulation.schemes": ["QuantScheme", "QuantizationDataType"],
    "qir.simulation.quantsim": ["QuantizationSimModel"],
    "qir.simulation.analyzer": ["CallbackFunc", "QuantAnalyzer"],
    "qir.simulation.checkpoint": ["load_checkpoint", "save_checkpoint"],
    "qir.simulation.tuning": ["correct_biases"],
    "qir.api.validation": ["Finding", "ModelValidator"],
    "qir.pages.stages": ["Stages"],
}
"""The names above by the module that has them: they load on use, so that `import qir` stays fast."""
_HOMES = {name: module for module, names in _ON_USE.items() for name in names}


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qir' has no attribute {name!r}")
    found = getattr(_import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


_register_layers()
