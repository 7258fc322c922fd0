"""How ranges are chosen and what tensors become, under the names that AIMET's users know."""

from __future__ import annotations

from enum import Enum

from qir.calibration.range_search import MethodName
from qir.errors import QirError


class QuantScheme(Enum):
    """How the range of a quantizer is chosen, and whether training moves it afterwards."""

    post_training_tf = 1
    post_training_tf_enhanced = 2
    training_range_learning_with_tf_init = 3
    training_range_learning_with_tf_enhanced_init = 4
    training_range_learning = 5
    post_training_percentile = 6
    min_max = 1

    @classmethod
    def of(cls, scheme: QuantScheme | str) -> QuantScheme:
        """The scheme of that name or alias. Raises QirError for another."""
        if isinstance(scheme, QuantScheme):
            return scheme
        if isinstance(scheme, str) and (scheme in ALIASES or scheme in cls.__members__):
            return ALIASES.get(scheme) or cls[scheme]
        known = ", ".join([*ALIASES, *cls.__members__])
        raise QirError(f"there is no quantization scheme {scheme!r}", help=f"schemes are {known}")

    @property
    def method(self) -> MethodName:
        """The calibration method that finds the range."""
        match self:
            case QuantScheme.post_training_tf | QuantScheme.training_range_learning_with_tf_init:
                return "min-max"
            case QuantScheme.post_training_percentile:
                return "percentile"
        return "sqnr"

    @property
    def learned(self) -> bool:
        """Whether training moves the range."""
        return self in LEARNED


ALIASES = {
    "tf": QuantScheme.post_training_tf,
    "min_max": QuantScheme.post_training_tf,
    "tf_enhanced": QuantScheme.post_training_tf_enhanced,
    "percentile": QuantScheme.post_training_percentile,
}
LEARNED = {
    QuantScheme.training_range_learning_with_tf_init,
    QuantScheme.training_range_learning_with_tf_enhanced_init,
    QuantScheme.training_range_learning,
}


class QuantizationDataType(Enum):
    """Whether a quantizer rounds to integers or to a shorter floating-point format."""

    undefined = 0
    int = 1
    float = 2
