"""Keras's layers with their options and inputs, as the lowering tables cover them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tests.lowered_keras_ops import (
    CHANNELS_FIRST,
    IMAGE,
    LINE,
    MATRIX,
    PLACES,
    TRUE,
    VOLUME,
    Fixed,
    X,
    Y,
    normal,
)

FIRST = {"data_format": "channels_first"}
SEQUENCE = normal(2, 5, 6)
STEPS = np.array([[True] * 5, [True, True, False, False, False]])
FRAMES = normal(2, 3, 6, 6, 2)
PHOTO = np.random.default_rng(2).uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)

Case = tuple[dict[str, Any], list[Any], dict[str, Any]]


def case(*inputs: Any, call: dict[str, Any] | None = None, **options: Any) -> Case:
    """Options of the layer, its inputs, and further arguments of its call."""
    return options, list(inputs), call or {}


class Cell(keras.layers.Layer):
    """A cell of a user's own."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = self.state_size = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, inputs: Any, states: Any) -> Any:
        made = keras.ops.tanh(keras.ops.matmul(inputs, self.kernel) + 0.5 * states[0])
        return made, [made]


def _recurrent(**more: Any) -> list[Case]:
    return [
        case(SEQUENCE, units=4, **more), case(SEQUENCE, units=4, return_sequences=True, go_backwards=True, **more),
        case(SEQUENCE, units=4, return_state=True, **more), case(SEQUENCE, units=4, use_bias=False, **more),
        case(SEQUENCE, call={"mask": Fixed(STEPS)}, units=4, return_sequences=True, **more),
        case(SEQUENCE, call={"mask": Fixed(STEPS)}, units=4, go_backwards=True, zero_output_for_mask=True,
             return_sequences=True, **more),
        case(SEQUENCE, units=4, activation="relu", **more),
    ]  # fmt: skip


def _pooled(image: np.ndarray, first: np.ndarray | None = None) -> list[Case]:
    cases = [case(image), case(image, pool_size=3, strides=1), case(image, pool_size=2, strides=2, padding="same")]
    return cases if first is None else [*cases, case(first, pool_size=2, **FIRST)]


def _global(image: np.ndarray) -> list[Case]:
    return [case(image), case(image, keepdims=True), case(image, **FIRST)]


L = keras.layers
LAYERS: dict[str, list[Case]] = {
    "Dense": [case(X, units=5), case(MATRIX, units=5, activation="relu", use_bias=False)],
    "EinsumDense": [
        case(X, equation="abc,cd->abd", output_shape=(None, 5), bias_axes="d"),
        case(X, equation="...x,xy->...y", output_shape=5, activation="gelu"),
    ],
    "Embedding": [case(PLACES, input_dim=5, output_dim=3), case(PLACES.astype(np.float32), input_dim=5, output_dim=3)],
    "ReversibleEmbedding": [case(PLACES, input_dim=5, output_dim=3)],
    "Conv1D": [
        case(LINE, filters=5, kernel_size=3),
        case(LINE, filters=4, kernel_size=3, padding="causal", dilation_rate=2),
        case(LINE, filters=4, kernel_size=4, strides=2, padding="same", groups=2, activation="relu"),
    ],
    "Conv2D": [
        case(IMAGE, filters=4, kernel_size=3),
        case(IMAGE, filters=6, kernel_size=(3, 2), strides=2, padding="same", groups=3),
        case(IMAGE, filters=4, kernel_size=3, dilation_rate=2, padding="same", use_bias=False, activation="swish"),
        case(CHANNELS_FIRST, filters=4, kernel_size=3, strides=(2, 1), padding="same", **FIRST),
    ],
    "Conv3D": [case(VOLUME, filters=3, kernel_size=2, strides=2, padding="same")],
    "Conv1DTranspose": [
        case(LINE, filters=3, kernel_size=3, strides=2),
        case(LINE, filters=3, kernel_size=4, padding="same"),
    ],
    "Conv2DTranspose": [
        case(IMAGE, filters=4, kernel_size=3, strides=2, padding="same", activation="relu"),
        case(IMAGE, filters=4, kernel_size=2, strides=3),
        case(IMAGE, filters=4, kernel_size=3, dilation_rate=2),
        case(IMAGE, filters=4, kernel_size=3, strides=2, output_padding=1),
        case(CHANNELS_FIRST, filters=4, kernel_size=3, strides=2, padding="same", output_padding=0, **FIRST),
    ],
    "Conv3DTranspose": [case(VOLUME, filters=3, kernel_size=2, strides=2, padding="same")],
    "DepthwiseConv1D": [case(LINE, kernel_size=3, depth_multiplier=2, padding="same")],
    "DepthwiseConv2D": [
        case(IMAGE, kernel_size=3, strides=2, padding="same", depth_multiplier=2, activation="relu"),
        case(CHANNELS_FIRST, kernel_size=2, dilation_rate=2, **FIRST),
    ],
    "SeparableConv1D": [case(LINE, filters=5, kernel_size=3, padding="same")],
    "SeparableConv2D": [
        case(IMAGE, filters=5, kernel_size=3, strides=2, padding="same", depth_multiplier=2, activation="relu"),
        case(CHANNELS_FIRST, filters=5, kernel_size=3, **FIRST),
    ],
    "BatchNormalization": [
        case(IMAGE),
        case(MATRIX, scale=False),
        case(CHANNELS_FIRST, axis=1, center=False, epsilon=0.1),
        case(VOLUME),
    ],
    "LayerNormalization": [case(X), case(X, axis=(1, 2), center=False), case(X, scale=False, epsilon=0.1)],
    "GroupNormalization": [
        case(normal(2, 5, 5, 4), groups=2),
        case(normal(2, 4, 5, 5), groups=-1, axis=1),
        case(normal(2, 5, 5, 4), groups=4, scale=False),
    ],
    "RMSNormalization": [case(X), case(X, axis=(1, 2))],
    "UnitNormalization": [case(X), case(X, axis=1)],
    "SpectralNormalization": [case(MATRIX, layer=L.Dense(5))],
    "MaxPooling1D": _pooled(LINE),
    "MaxPooling2D": _pooled(IMAGE, CHANNELS_FIRST),
    "MaxPooling3D": _pooled(VOLUME),
    "AveragePooling1D": [case(LINE, pool_size=2), case(LINE, pool_size=3, strides=1)],
    "AveragePooling2D": [
        case(IMAGE, pool_size=2),
        case(IMAGE, pool_size=3, strides=1, padding="same"),
        case(CHANNELS_FIRST, pool_size=2, **FIRST),
    ],
    "AveragePooling3D": [case(VOLUME, pool_size=2)],
    **{f"Global{kind}Pooling1D": _global(LINE) for kind in ("Average", "Max")},
    **{f"Global{kind}Pooling2D": _global(IMAGE) for kind in ("Average", "Max")},
    **{f"Global{kind}Pooling3D": _global(VOLUME) for kind in ("Average", "Max")},
    "GlobalAveragePooling1D": [*_global(LINE), case(SEQUENCE, call={"mask": Fixed(STEPS)})],
    **{f"Adaptive{kind}Pooling1D": [case(LINE, output_size=4)] for kind in ("Average", "Max")},
    **{
        f"Adaptive{kind}Pooling2D": [case(IMAGE, output_size=(2, 3)), case(CHANNELS_FIRST, output_size=1, **FIRST)]
        for kind in ("Average", "Max")
    },
    **{f"Adaptive{kind}Pooling3D": [case(VOLUME, output_size=2)] for kind in ("Average", "Max")},
    "Activation": [case(X, activation="relu"), case(X, activation="softmax")],
    "ReLU": [case(X), case(X, max_value=6), case(X, negative_slope=0.1), case(X, max_value=1.0, threshold=0.2)],
    "LeakyReLU": [case(X), case(X, negative_slope=0.1)],
    "ELU": [case(X), case(X, alpha=0.5)],
    "PReLU": [case(X), case(IMAGE, shared_axes=[1, 2])],
    "Softmax": [case(X), case(X, axis=1), case(X, axis=(1, 2)), case(X, call={"mask": Fixed(TRUE)})],
    "Dropout": [case(X, rate=0.3)],
    "AlphaDropout": [case(X, rate=0.3)],
    "GaussianDropout": [case(X, rate=0.3)],
    "GaussianNoise": [case(X, stddev=0.3)],
    "SpatialDropout1D": [case(LINE, rate=0.3)],
    "SpatialDropout2D": [case(IMAGE, rate=0.3), case(CHANNELS_FIRST, rate=0.3, **FIRST)],
    "SpatialDropout3D": [case(VOLUME, rate=0.3)],
    "ActivityRegularization": [case(X, l1=0.1)],
    "Identity": [case(X)],
    "Masking": [case(SEQUENCE)],
    **{
        name: [case(X, Y), case(X, Y, X)]
        for name in ("Add", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
    },
    "Subtract": [case(X, Y)],
    "Dot": [case(X, Y, axes=(2, 2)), case(MATRIX, MATRIX, axes=1, normalize=True)],
    "Flatten": [case(IMAGE), case(CHANNELS_FIRST, **FIRST), case(X[0, :, 0])],
    "Reshape": [case(X, target_shape=(4, 3)), case(X, target_shape=(2, -1))],
    "Permute": [case(X, dims=(2, 1))],
    "RepeatVector": [case(MATRIX, n=3)],
    "ZeroPadding1D": [case(LINE, padding=(1, 2))],
    "ZeroPadding2D": [case(IMAGE), case(IMAGE, padding=((1, 0), (2, 1))), case(CHANNELS_FIRST, padding=2, **FIRST)],
    "ZeroPadding3D": [case(VOLUME, padding=(1, 0, 2))],
    "Cropping1D": [case(LINE, cropping=(1, 2))],
    "Cropping2D": [case(IMAGE, cropping=((1, 0), (2, 1))), case(CHANNELS_FIRST, cropping=2, **FIRST)],
    "Cropping3D": [case(VOLUME, cropping=(1, 0, 2))],
    "UpSampling1D": [case(LINE, size=3)],
    "UpSampling3D": [case(VOLUME, size=2)],
    "UpSampling2D": [case(IMAGE), case(IMAGE, size=(2, 3), interpolation="bilinear"), case(CHANNELS_FIRST, **FIRST)],
    "LSTM": _recurrent(),
    "SimpleRNN": _recurrent(),
    "GRU": [*_recurrent(), *_recurrent(reset_after=False)[:2]],
    "LSTMCell": [],
    "GRUCell": [],
    "SimpleRNNCell": [],
    "StackedRNNCells": [],
    "RNN": [
        case(SEQUENCE, cell=Cell(4)),
        case(SEQUENCE, cell=[L.LSTMCell(4), L.GRUCell(3)], return_sequences=True),
        case(SEQUENCE, cell=L.SimpleRNNCell(4), return_state=True),
    ],
    "Bidirectional": [
        case(SEQUENCE, layer=L.LSTM(4)),
        case(SEQUENCE, layer=L.GRU(4, return_sequences=True), merge_mode="sum"),
        case(SEQUENCE, call={"mask": Fixed(STEPS)}, layer=L.LSTM(4, return_sequences=True)),
    ],
    "TimeDistributed": [case(SEQUENCE, layer=L.Dense(4)), case(FRAMES, layer=L.Conv2D(3, 2))],
    "ConvLSTM1D": [case(normal(2, 3, 6, 2), filters=3, kernel_size=2)],
    "ConvLSTM2D": [case(FRAMES, filters=3, kernel_size=2, return_sequences=True, padding="same")],
    "ConvLSTM3D": [case(normal(1, 2, 4, 4, 4, 2), filters=2, kernel_size=2)],
    "MultiHeadAttention": [
        case(SEQUENCE, SEQUENCE, call={"spread": True}, num_heads=2, key_dim=3),
        case(SEQUENCE, X, call={"spread": True}, num_heads=2, key_dim=3, value_dim=5, output_shape=4),
        case(SEQUENCE, SEQUENCE, call={"spread": True, "use_causal_mask": True}, num_heads=2, key_dim=3),
        case(SEQUENCE, SEQUENCE, call={"spread": True}, num_heads=2, key_dim=3, dropout=0.1),
    ],
    "GroupQueryAttention": [
        case(SEQUENCE, SEQUENCE, call={"spread": True}, head_dim=3, num_query_heads=4, num_key_value_heads=2)
    ],
    "Attention": [case(SEQUENCE, SEQUENCE), case(SEQUENCE, SEQUENCE, use_scale=True)],
    "AdditiveAttention": [case(SEQUENCE, SEQUENCE)],
    "Rescaling": [case(IMAGE, scale=0.5, offset=-1.0)],
    "Normalization": [
        case(IMAGE, mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
        case(X, mean=0.5, variance=2.0, invert=True, axis=None),
    ],
    "CenterCrop": [case(IMAGE, height=4, width=5)],
    "Resizing": [case(IMAGE, height=4, width=9)],
    "Discretization": [case(X, bin_boundaries=[-0.5, 0.0, 0.5])],
    "CategoryEncoding": [
        case(PLACES, num_tokens=4, output_mode="multi_hot"),
        case(PLACES[:, :1], num_tokens=4, output_mode="one_hot"),
    ],
    "Lambda": [case(X, function=lambda x: x * 2 + 1)],
    **{
        name: [case(PHOTO)]
        for name in (
            "AugMix",
            "AutoContrast",
            "CutMix",
            "MixUp",
            "RandAugment",
            "RandomColorJitter",
            "RandomElasticTransform",
            "RandomErasing",
            "RandomFlip",
            "RandomGaussianBlur",
            "RandomGrayscale",
            "RandomInvert",
            "RandomPerspective",
            "RandomShear",
            "Solarization",
        )
    },
    **{
        name: [case(PHOTO, factor=0.1)]
        for name in (
            "RandomBrightness",
            "RandomColorDegeneration",
            "RandomContrast",
            "RandomHue",
            "RandomRotation",
            "RandomSaturation",
            "RandomSharpness",
        )
    },
    "RandomCrop": [case(PHOTO, height=6, width=6)],
    "RandomTranslation": [case(PHOTO, height_factor=0.1, width_factor=0.1)],
    "RandomZoom": [case(PHOTO, height_factor=0.1)],
}
"""By the name in `keras.layers`."""
