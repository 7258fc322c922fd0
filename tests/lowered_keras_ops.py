"""Calls of the functions of `keras.ops` that the lowering tables cover, and of the activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Call:
    """Arguments; arrays among them become inputs of the model."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Fixed:
    """An array that is no input of the model, but part of it."""

    array: np.ndarray


def call(*args: Any, **kwargs: Any) -> Call:
    """The arguments of one call."""
    return Call(args, kwargs)


_random = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return _random.standard_normal(shape).astype(np.float32)


X, Y = normal(2, 3, 4), normal(2, 3, 4)
ROW, MATRIX, SQUARE = normal(4), normal(3, 4), normal(3, 3) + 3 * np.eye(3, dtype=np.float32)
UNIT = _random.uniform(-1, 1, (2, 3, 4)).astype(np.float32)
LARGE, POSITIVE = np.abs(X) + 1.5, np.abs(X) + 0.1
WHOLE, OTHER = np.arange(12, dtype=np.int32).reshape(3, 4), np.arange(1, 13, dtype=np.int32).reshape(3, 4)
HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
TRUE, FALSE = X > 0, Y > 0
ODD = np.array([0.0, np.nan, np.inf, -np.inf, 1.0], np.float32)
SIGNAL, WINDOW = normal(9), normal(3)
IMAGE, CHANNELS_FIRST = normal(2, 7, 8, 3), normal(2, 3, 7, 8)
LINE, VOLUME = normal(2, 9, 4), normal(2, 5, 6, 5, 2)
PLACES = np.array([[2, 0, 1], [1, 1, 0]], np.int32)
TIES = np.array([[3.0, 1.0, 2.0], [9.0, 7.0, 8.0]], np.float32)
SHARES = (np.exp(MATRIX) / np.exp(MATRIX).sum(-1, keepdims=True)).astype(np.float32)

_unary = "abs absolute arcsinh arctan ceil cos cosh erf erfc exp exp2 expm1 floor negative sign sin sinh tan tanh trunc"
_unary += " square cbrt deg2rad rad2deg sinc fabs conj conjugate real copy isreal signbit stop_gradient angle"
_activations = "relu relu6 selu softplus softsign sigmoid silu swish hard_sigmoid hard_silu hard_swish hard_tanh"
_activations += " log_sigmoid tanh_shrink sparse_plus sparse_sigmoid"
_compared = [call(X, Y), call(X, 0.5), call(WHOLE, 5), call(WHOLE, MATRIX)]
_reduced = [call(X), call(X, axis=1), call(X, axis=(0, -1), keepdims=True)]

CALLS: dict[str, list[Call]] = {
    **{name: [call(X)] for name in (*_unary.split(), *_activations.split())},
    **{name: [call(UNIT * 0.9)] for name in ("arccos", "arcsin", "arctanh")},
    **{name: [call(LARGE)] for name in ("arccosh", "log", "reciprocal", "sqrt", "rsqrt", "log1p", "log2", "log10")},
    **{name: [call(X), call(X, 0.3)] for name in ("elu", "celu", "leaky_relu", "hard_shrink", "soft_shrink")},
    "exp": [call(X), call(WHOLE)],
    "sqrt": [call(LARGE), call(OTHER)],
    "gelu": [call(X), call(X, approximate=False)],
    "glu": [call(X), call(X, axis=0)],
    "threshold": [call(X, 0.2, -1.0)],
    "squareplus": [call(X), call(X, b=2)],
    "sparsemax": [call(X), call(X, axis=1)],
    **{name: [call(X), call(X, axis=1), call(X, axis=(0, 2))] for name in ("softmax", "log_softmax")},
    "round": [call(HALVES), call(X, decimals=2)],
    **{name: [call(ODD)] for name in ("isnan", "isinf", "isfinite", "isposinf", "isneginf")},
    "nan_to_num": [call(ODD), call(ODD, nan=2.0, posinf=9.0, neginf=-9.0)],
    **{
        name: [call(X, Y), call(X, 2), call(X, ROW), call(WHOLE, 2), call(WHOLE, MATRIX)]
        for name in ("subtract", "maximum", "minimum")
    },
    **{
        name: [call(X, Y), call(X, 2), call(X, ROW), call(WHOLE, 0.5), call(TRUE, FALSE), call(TRUE, X)]
        for name in ("add", "multiply")
    },
    **{name: [call(X, LARGE), call(WHOLE, OTHER), call(X, 3)] for name in ("divide", "true_divide")},
    "divide_no_nan": [call(WHOLE - 5, WHOLE), call(X, LARGE)],
    **{name: [call(X, LARGE), call(WHOLE, OTHER)] for name in ("mod", "floor_divide", "fmod")},
    "power": [call(X, 2), call(LARGE, Y), call(WHOLE, 2)],
    **dict.fromkeys(("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"), _compared),
    **{name: [call(TRUE, FALSE)] for name in ("logical_and", "logical_or", "logical_xor")},
    "logical_not": [call(TRUE)],
    **{name: [call(WHOLE, OTHER)] for name in ("bitwise_and", "bitwise_or", "bitwise_xor")},
    **{name: [call(WHOLE)] for name in ("bitwise_not", "bitwise_invert")},
    **{name: [call(WHOLE, 2)] for name in ("bitwise_left_shift", "left_shift", "bitwise_right_shift", "right_shift")},
    **{name: [call(X, Y)] for name in ("arctan2", "logaddexp", "logaddexp2", "hypot", "fmax", "fmin", "heaviside")},
    "isclose": [call(X, X + 1e-6), call(X, Y, rtol=0.5)],
    "allclose": [call(X, X + 1e-6)],
    "ldexp": [call(MATRIX, WHOLE)],
    "clip": [call(X, -0.5, 0.5), call(WHOLE, 2, 5), call(X, Y, LARGE)],
    "where": [call(TRUE, X, Y), call(TRUE, X, 0.0), call(MATRIX > 0, WHOLE, MATRIX)],
    "cast": [call(X, "int32"), call(WHOLE, "float32"), call(X, "bool")],
    "saturate_cast": [call(X * 200, "int8")],
    "select": [call([TRUE, FALSE], [X, Y], 0.5)],
    "array": [call(X), call(X, dtype="int32")],
    "convert_to_tensor": [call(X), call(X, dtype="float64")],
    **dict.fromkeys(("max", "amax", "min", "amin", "mean", "sum", "prod", "var", "std", "logsumexp"), _reduced),
    "sum": [*_reduced, call(WHOLE), call(TRUE, axis=0)],
    "mean": [*_reduced, call(WHOLE, axis=0)],
    "max": [*_reduced, call(X, axis=1, initial=0.5)],
    **{name: [call(TRUE), call(TRUE, axis=1), call(X, axis=0, keepdims=True)] for name in ("any", "all")},
    "count_nonzero": [call(WHOLE)],
    **{name: [call(X), call(X, axis=1), call(X, axis=-1, keepdims=True)] for name in ("argmax", "argmin")},
    "cumsum": [call(X), call(X, axis=1), call(WHOLE, axis=0)],
    "cumprod": [call(MATRIX), call(X, axis=1)],
    "moments": [call(X, [0, 1]), call(X, axes=1, keepdims=True)],
    "average": [call(X), call(X, axis=-1, weights=np.abs(ROW))],
    "normalize": [call(X), call(X, axis=1, order=1)],
    "norm": [call(X), call(MATRIX, ord=1, axis=1), call(X, axis=1, keepdims=True), call(X, ord=3, axis=-1)],
    "ptp": [call(X), call(X, axis=1)],
    "median": [call(X, axis=1), call(MATRIX)],
    "quantile": [call(X, 0.3, axis=1)],
    "percentile": [call(X, 30.0, axis=1)],
    "reshape": [call(X, (6, 4)), call(X, (-1, 2))],
    "transpose": [call(X), call(X, (2, 0, 1))],
    "swapaxes": [call(X, 0, -1)],
    "moveaxis": [call(X, 0, -1), call(X, (0, 1), (1, 2))],
    "expand_dims": [call(X, 1), call(X, (0, -1))],
    "squeeze": [call(X[:, :1]), call(X[:, :1], axis=1)],
    "ravel": [call(X)],
    "concatenate": [call([X, Y], axis=1), call([X, WHOLE[None, :, :].repeat(2, 0)], axis=-1)],
    "append": [call(X, Y), call(X, Y, axis=1)],
    "stack": [call([X, Y]), call([X, Y], axis=-1)],
    **{name: [call([X, Y])] for name in ("hstack", "vstack", "dstack")},
    "tile": [call(MATRIX, 2), call(MATRIX, (2, 1, 3))],
    "repeat": [call(MATRIX, 2), call(MATRIX, 2, axis=1)],
    "broadcast_to": [call(ROW, (3, 4))],
    "meshgrid": [call(ROW, WINDOW), call(ROW, WINDOW, indexing="ij")],
    "split": [call(X, 2, axis=2), call(X, [1, 3], axis=-1)],
    "array_split": [call(X, 3, axis=2)],
    "hsplit": [call(X, 3)],
    "vsplit": [call(X, 2)],
    "dsplit": [call(X, 2)],
    "unstack": [call(X, axis=1)],
    "flip": [call(X), call(X, axis=1), call(X, axis=(0, 2))],
    "fliplr": [call(X)],
    "flipud": [call(X)],
    "rot90": [call(MATRIX), call(X, k=2, axes=(0, 2)), call(X, k=3, axes=(1, 2))],
    "roll": [call(X, 1), call(X, 2, axis=1), call(X, (1, 2), axis=(0, 2))],
    "pad": [
        call(X, ((0, 0), (1, 2), (0, 1))),
        call(X, ((0, 0), (1, 1), (2, 1)), mode="reflect"),
        call(X, ((0, 0), (1, 2), (0, 1)), constant_values=2.0),
    ],
    "depth_to_space": [call(normal(2, 3, 3, 8), 2), call(normal(2, 8, 3, 3), 2, data_format="channels_first")],
    "space_to_depth": [call(normal(2, 4, 4, 3), 2), call(normal(2, 3, 4, 4), 2, data_format="channels_first")],
    "get_item": [
        call(X, (slice(None), 1)),
        call(X, (Ellipsis, slice(None, None, 2))),
        call(X, (None, 0)),
        call(X, (-1,)),
    ],
    "take": [call(X, PLACES), call(X, PLACES, axis=1), call(X, [0, 2], axis=-1), call(X, 1, axis=0)],
    "take_along_axis": [call(TIES, PLACES, axis=1)],
    "slice": [call(X, (0, 1, 1), (2, 2, 3))],
    "slice_update": [call(X, (0, 1, 1), normal(2, 2, 2))],
    "scatter": [call(np.array([[0], [2], [0]], np.int32), normal(3, 2), (4, 2))],
    "scatter_update": [call(MATRIX, np.array([[0, 1], [2, 3]], np.int32), normal(2))],
    "sort": [call(TIES), call(X, axis=1)],
    "argsort": [call(TIES), call(X, axis=1)],
    "top_k": [call(TIES, 2)],
    "in_top_k": [call(np.array([1, 0], np.int32), TIES, 2)],
    "searchsorted": [
        call(np.array([1.0, 2.0, 3.0], np.float32), TIES[0]),
        call(np.array([1.0, 2.0, 3.0], np.float32), TIES[0], side="right"),
    ],
    "digitize": [call(X, np.array([-0.5, 0.0, 0.5], np.float32))],
    "isin": [call(WHOLE, OTHER[0]), call(WHOLE, OTHER[0], invert=True)],
    "one_hot": [call(PLACES, 4), call(PLACES, 3, axis=1, dtype="int32")],
    "multi_hot": [call(PLACES, 4, dtype="int32")],
    "bincount": [call(np.array([0, 1, 1, 3], np.int32), minlength=5)],
    "unravel_index": [call(WHOLE, (3, 4))],
    **{
        f"segment_{kind}": [call(MATRIX, np.array([0, 1, 0], np.int32), num_segments=2)]
        for kind in ("sum", "max", "min", "prod")
    },
    "diag": [call(ROW), call(MATRIX, k=1)],
    "diagflat": [call(ROW)],
    "diagonal": [call(X), call(X, 1, 1, 2)],
    **{name: [call(X), call(MATRIX, k=1)] for name in ("tril", "triu")},
    "matmul": [call(MATRIX, normal(4, 5)), call(X, normal(4, 5)), call(X, ROW), call(ROW, normal(4, 2))],
    "dot": [call(MATRIX, normal(4, 5)), call(X, ROW), call(X, normal(4, 5))],
    "einsum": [call("bij,bik->bjk", X, Y), call("ij,j->i", MATRIX, ROW)],
    "tensordot": [call(X, Y, axes=3), call(X, normal(4, 3, 5), axes=[[1, 2], [1, 0]])],
    "inner": [call(X, ROW), call(MATRIX, MATRIX)],
    "outer": [call(ROW, WINDOW)],
    "vdot": [call(ROW, ROW)],
    "kron": [call(MATRIX, SQUARE)],
    "cross": [call(normal(2, 3), normal(2, 3))],
    "trace": [call(SQUARE), call(X, 1, 1, 2)],
    "cdist": [call(MATRIX, normal(5, 4))],
    "det": [call(SQUARE)],
    "logdet": [call(SQUARE)],
    "slogdet": [call(SQUARE)],
    "trapezoid": [call(X), call(X, dx=0.5, axis=1)],
    "diff": [call(X), call(X, n=2, axis=1)],
    "corrcoef": [call(MATRIX)],
    "correlate": [call(SIGNAL, WINDOW, mode=mode) for mode in ("valid", "same", "full")],
    "vander": [call(ROW), call(ROW, N=3, increasing=True)],
    "psnr": [call(X, Y, 2.0)],
    "binary_crossentropy": [
        call((X > 0).astype(np.float32), UNIT * 0.4 + 0.5),
        call((X > 0).astype(np.float32), X, from_logits=True),
    ],
    "categorical_crossentropy": [call(SHARES, SHARES[::-1].copy()), call(SHARES, MATRIX, from_logits=True)],
    "sparse_categorical_crossentropy": [
        call(np.array([0, 3, 1], np.int32), SHARES),
        call(np.array([0, 3, 1], np.int32), MATRIX, from_logits=True),
    ],
    **{name: [call(X)] for name in ("zeros_like", "ones_like")},
    "full_like": [call(X, 2.5), call(WHOLE, 3)],
    "full": [call((2, 3), np.array(2.5, np.float32))],
    "linspace": [call(ROW, ROW + 3, num=5), call(ROW, ROW + 3, num=4, endpoint=False)],
    "logspace": [call(UNIT[0, 0], UNIT[0, 1], num=4)],
    "geomspace": [call(LARGE[0, 0], LARGE[0, 1], num=4)],
    "conv": [
        call(IMAGE, normal(3, 2, 3, 4), strides=(2, 1), padding="same"),
        call(CHANNELS_FIRST, normal(3, 3, 3, 4), dilation_rate=2, data_format="channels_first"),
        call(LINE, normal(3, 4, 5)),
        call(VOLUME, normal(2, 2, 2, 2, 3), strides=2),
    ],
    "depthwise_conv": [call(IMAGE, normal(3, 3, 3, 2), padding="same"), call(LINE, normal(3, 4, 1))],
    "separable_conv": [call(IMAGE, normal(3, 3, 3, 2), normal(1, 1, 6, 4), padding="same")],
    "conv_transpose": [
        call(IMAGE, normal(3, 3, 4, 3), strides=2, padding="same"),
        call(IMAGE, normal(3, 2, 4, 3)),
        call(LINE, normal(2, 5, 4), strides=3),
    ],
    "max_pool": [
        call(IMAGE, 2),
        call(IMAGE, (3, 2), strides=2, padding="same"),
        call(LINE, 2),
        call(CHANNELS_FIRST, 2, strides=1, data_format="channels_first"),
    ],
    "average_pool": [call(IMAGE, 2), call(LINE, 3, strides=1), call(VOLUME, 2)],
    **{
        name: [call(IMAGE, (2, 2)), call(IMAGE, (1, 3)), call(LINE, (4,))]
        for name in ("adaptive_average_pool", "adaptive_max_pool")
    },
    "batch_normalization": [
        call(X, ROW, np.abs(ROW) + 1, -1),
        call(IMAGE, WINDOW, np.abs(WINDOW) + 1, 3, WINDOW, WINDOW),
    ],
    "layer_normalization": [call(X), call(X, ROW, ROW), call(X, axis=(1, 2), epsilon=1e-3)],
    "rms_normalization": [call(X), call(X, ROW), call(X, axis=(1, 2), epsilon=1e-3)],
    "dot_product_attention": [
        call(normal(2, 5, 4, 6), normal(2, 7, 4, 6), normal(2, 7, 4, 6)),
        call(normal(2, 5, 4, 6), normal(2, 7, 2, 6), normal(2, 7, 2, 6), scale=0.3),
        call(normal(2, 5, 2, 6), normal(2, 5, 2, 6), normal(2, 5, 2, 6), is_causal=True),
        call(normal(2, 5, 2, 6), normal(2, 5, 2, 6), normal(2, 5, 2, 6), mask=normal(2, 1, 5, 5) > -1),
    ],
    "unfold": [call(CHANNELS_FIRST, 3), call(CHANNELS_FIRST, (2, 3), padding=1, stride=2)],
    "fold": [call(normal(2, 12, 30), (6, 7), 2)],
    "rearrange": [call(X, "b h w -> b (w h)"), call(X, "b (h two) w -> b h two w", two=3)],
    "extract_sequences": [call(normal(2, 12), 4, 3)],
    "nanmax": [call(X), call(X, axis=1)],
    "nanmin": [call(X), call(X, axis=1)],
    "nansum": [call(X), call(X, axis=1)],
    "nanmean": [call(X), call(X, axis=1)],
    "nanprod": [call(MATRIX), call(X, axis=1)],
    "nanstd": [call(X, axis=1)],
    "nanvar": [call(X, axis=1)],
    "nanargmax": [call(X, axis=1)],
    "nanargmin": [call(X, axis=1)],
    "nancumsum": [call(X, axis=1)],
    "nancumprod": [call(X, axis=1)],
    "image.resize": [
        call(IMAGE, (5, 9)),
        call(IMAGE, (14, 16), interpolation="nearest"),
        call(IMAGE[0], (9, 5), interpolation="bilinear"),
        call(CHANNELS_FIRST, (3, 5), antialias=True, data_format="channels_first"),
    ],
    "image.extract_patches": [
        call(IMAGE, 2),
        call(IMAGE, (3, 2), strides=(1, 2), padding="same"),
        call(IMAGE, 2, strides=1, dilation_rate=2),
    ],
    "image.extract_patches_3d": [call(VOLUME, 2)],
    "image.rgb_to_grayscale": [call(IMAGE), call(CHANNELS_FIRST, data_format="channels_first")],
    "image.pad_images": [call(IMAGE, 1, 2, 0, 1), call(IMAGE, 1, 2, target_height=9, target_width=12)],
    "image.crop_images": [call(IMAGE, 1, 2, 0, 1), call(IMAGE, 1, 2, target_height=4, target_width=5)],
    "image.sobel_edges": [call(IMAGE), call(CHANNELS_FIRST, data_format="channels_first")],
}
"""By the name in `keras.ops`."""

ACTIVATIONS: dict[str, list[Call]] = {
    **{name: [call(X)] for name in (*_activations.split(), "linear", "exponential", "mish", "tanh", "gelu")},
    **{name: [call(X), call(X, 0.3)] for name in ("elu", "celu", "leaky_relu", "hard_shrink", "soft_shrink")},
    "relu": [call(X), call(X, negative_slope=0.2), call(X, max_value=1.0), call(X, threshold=0.3),
             call(X, 0.2, 1.0, 0.3), call(X, negative_slope=0.2, max_value=0.5)],
    "gelu": [call(X), call(X, approximate=True)],
    "glu": [call(X)],
    "threshold": [call(X, 0.2, -1.0)],
    "squareplus": [call(X)],
    "sparsemax": [call(X)],
    **{name: [call(X), call(X, axis=1)] for name in ("softmax", "log_softmax")},
}  # fmt: skip
"""By the name in `keras.activations`."""
