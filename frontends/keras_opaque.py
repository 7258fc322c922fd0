"""What of `keras.layers` and `keras.ops` no lowering covers, and why.

A call of these stays opaque in an imported graph, or is no call of a graph at all. `tests.test_keras_completeness` asks
for a reason for everything that Keras has and no lowering covers.
"""

from __future__ import annotations

_NO_TENSORS = "it computes no tensors of a model"
_BASE = "a base class: what computes is in the classes that inherit from it"
_TABLE = "it looks strings or whole numbers up in a table that Keras holds in Python or TensorFlow"
_FOREIGN = "it wraps code of another framework, of which Keras knows no operations"
_COMPLEX = "it computes with complex numbers, for which runtimes have no kernels"
_ALGEBRA = "a matrix decomposition, for which ONNX has no operators"
_LOOP = "its loop ends where the data says, or runs a function that is not traced"
_DATA = "the size of its result depends on the data, and Keras can not trace it"
_WARP = "it samples images at computed places"
_NUMPY_ONLY = "ONNX has no operator that computes it"
_OUTSIDE = "it runs when the model is built, and its result is a constant of the graph"

LAYERS: dict[str, str] = {
    **dict.fromkeys(("Layer", "Wrapper"), _BASE),
    **dict.fromkeys(("InputLayer", "InputSpec"), _NO_TENSORS),
    **dict.fromkeys(("Hashing", "HashedCrossing", "IntegerLookup", "StringLookup", "TextVectorization"), _TABLE),
    **dict.fromkeys(("FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"), _FOREIGN),
    **dict.fromkeys(("ContrastLimitedAdaptiveHistogramEqualization", "Equalization"),
                    "it counts how often each brightness is there"),
    "RandomPosterization": "it counts in steps of brightness by whole numbers of 8 bits, also where it changes nothing",
    "MaxNumBoundingBoxes": "it changes labels, and no tensors of a model",
    "Pipeline": "it runs preprocessing layers one after the other, outside of a model",
    "MelSpectrogram": _COMPLEX,
    "STFTSpectrogram": "its windows are a convolution that Keras computes when it is built, on its backend's tensors",
}  # fmt: skip

OPS: dict[str, str] = {
    **dict.fromkeys(("fft", "fft2", "ifft2", "rfft", "irfft", "stft", "istft", "polar", "view_as_complex",
                     "view_as_real"), _COMPLEX),
    **dict.fromkeys(("cholesky", "cholesky_inverse", "eig", "eigh", "inv", "lstsq", "lu_factor", "matrix_rank", "pinv",
                     "qr", "solve", "solve_triangular", "svd"), _ALGEBRA),
    **dict.fromkeys(("associative_scan", "fori_loop", "map", "scan", "switch", "cond", "vectorize", "vectorized_map",
                     "while_loop"), _LOOP),
    **dict.fromkeys(("ctc_decode", "ctc_loss"), "its loop over the places of a sequence has no operator in ONNX"),
    **dict.fromkeys(("nonzero", "unique", "histogram"), _DATA),
    **dict.fromkeys(("erfinv", "i0", "gcd", "lcm", "nextafter"), _NUMPY_ONLY),
    **dict.fromkeys(("nanmedian", "nanquantile", "nanpercentile"), "it orders numbers of which some are missing"),
    "argpartition": "the order of its places is not defined, and differs from backend to backend",
    "view": "it takes the bits of numbers for those of another dtype",
    **dict.fromkeys(("arange", "bartlett", "blackman", "empty", "eye", "hamming", "hanning", "identity", "kaiser",
                     "ones", "tri", "zeros", "imag"), _OUTSIDE),
    "imag": "torch has no imaginary part of real numbers",
    "empty_like": "its numbers are not defined",
    **dict.fromkeys(("convert_to_numpy", "custom_gradient", "dtype", "is_tensor", "jvp", "ndim", "shape", "size"),
                    _NO_TENSORS),
    **dict.fromkeys(("image.affine_transform", "image.elastic_transform", "image.map_coordinates",
                     "image.perspective_transform", "image.scale_and_translate"), _WARP),
    **dict.fromkeys(("image.gaussian_blur", "image.hsv_to_rgb", "image.rgb_to_hsv", "image.ssim"),
                    "no lowering writes its arithmetic yet: it stays a call of Keras"),
}  # fmt: skip

ACTIVATIONS: dict[str, str] = dict.fromkeys(("deserialize", "get", "serialize"), _NO_TENSORS)
