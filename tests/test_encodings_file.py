"""Encodings files: read back bit for bit in every version, and refused with one error when they do not fit."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding
from qir.encodings.entry import Place
from qir.encodings.file import VERSIONS, TensorEncodings, encodings_document, read_encodings, write_encodings
from qir.errors import QirError

SCALES = st.floats(2.0**-120, 2.0**100, width=32)
SHAPE = (4, 6, 2, 1)


def fields_of(encoding: Encoding) -> dict[str, Any]:
    found: dict[str, Any] = {"class": type(encoding)}
    for item in fields(encoding):
        value = getattr(encoding, item.name)
        found[item.name] = (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
    return found


def uncalibrated(encoding: Encoding) -> Encoding:
    """The grid as an inserted quantizer has it: an unsigned one is not told yet which integers it needs."""
    dtype = f"i{encoding.bits}" if encoding.unsigned else encoding.dtype
    return replace(encoding, dtype=dtype, scale=None, zero_point=None)


@st.composite
def integer_grids(draw: st.DrawFn) -> Encoding:
    symmetric = draw(st.booleans())
    unsigned = symmetric and draw(st.booleans())
    bits = draw(st.integers(2, 16))
    dtype = f"{'i' if unsigned else draw(st.sampled_from('iu'))}{bits}"
    grid = Encoding(dtype, symmetric, None, draw(st.booleans()), unsigned=unsigned)
    match draw(st.sampled_from(["tensor", "channel", "block", "power"])):
        case "channel":
            grid = replace(grid, axis=draw(st.integers(0, 3)))
        case "block" | "power" as kind:
            axis, block = draw(st.sampled_from([(0, 1), (1, 0), (None, 1), (0, 2), (2, 0)]))
            size = draw(st.sampled_from([size for size in (1, 2, 3, 6) if SHAPE[block] % size == 0]))
            grid = replace(grid, axis=axis, block_axis=block, block_size=size)
            if kind == "power":
                grid = LowPowerEncoding(f"i{bits}", True, axis, grid.narrow, block_axis=block, block_size=size,
                                        scale_bits=bits)  # fmt: skip
    count = grid.scale_shape(SHAPE)
    high = np.array(draw(st.lists(SCALES, min_size=int(np.prod(count)), max_size=int(np.prod(count)))))
    low = -high * (0.0 if unsigned and draw(st.booleans()) else draw(st.sampled_from([0.0, 0.3, 1.0, 7.0])))
    return grid.with_range(low.reshape(count), high.reshape(count))


FLOAT_GRIDS = st.sampled_from([FloatEncoding("f16"), FloatEncoding("bf16")])
EIGHT_BIT_FLOATS = st.builds(
    lambda dtype, scale: replace(FloatEncoding(dtype), scale=np.array(scale, np.float32)),
    st.sampled_from(["f8e4m3", "f8e5m2"]), SCALES,
)  # fmt: skip


def holds(version: str, encoding: Encoding) -> bool:
    """Whether the version has a place for the grid."""
    if isinstance(encoding, FloatEncoding):
        return (encoding.bits == 8) == version.startswith("2")
    return version != "0.6.1" or encoding.block_axis is None


def round_trip(encodings: dict[str, Encoding], version: str, parameters: bool) -> dict[str, Encoding]:
    places = {name: Place(uncalibrated(e), SHAPE, parameters) for name, e in encodings.items()}
    tensors = TensorEncodings(*(({}, encodings) if parameters else (encodings, {})))
    text = json.dumps(encodings_document(tensors, version))
    back = read_encodings(json.loads(text)).tensors(places)
    return dict(back.parameters if parameters else back.activations)


@given(st.lists(integer_grids() | FLOAT_GRIDS | EIGHT_BIT_FLOATS, max_size=4), st.sampled_from(VERSIONS), st.booleans())
@settings(max_examples=300, deadline=None)
def test_what_is_written_reads_back_bit_for_bit(grids: list[Encoding], version: str, parameters: bool) -> None:
    encodings = {f"t{number}": grid for number, grid in enumerate(grids) if holds(version, grid)}
    back = round_trip(encodings, version, parameters)
    assert {name: fields_of(e) for name, e in back.items()} == {name: fields_of(e) for name, e in encodings.items()}


def test_a_file_without_a_graph_reads_as_usual_grids(tmp_path: Path) -> None:
    activation = Encoding("u8").with_range(np.array(-1.0), np.array(3.0))
    weight = Encoding("i4", True, 0).with_range(-np.ones(3), np.array([1.0, 2.0, 0.1]))
    for version in VERSIONS:
        path = tmp_path / f"{version}.encodings"
        write_encodings(path, TensorEncodings({"x": activation}, {"w": weight}), version)
        file = read_encodings(path)
        back = file.tensors()
        found = {**back.activations, **back.parameters}
        assert file.version == version
        assert fields_of(found["x"]) == fields_of(activation)
        assert fields_of(found["w"]) == fields_of(weight)
        assert set(back.parameters) == (set() if version.startswith("2") else {"w"})


# -- the forms, field by field, as AIMET documents them ----------------------------------------------------------------

U8 = Encoding("u8", scale=np.array(0.5, np.float32), zero_point=np.array(3, np.uint8))
I4 = Encoding("i4", True, 0, scale=np.array([0.5, 0.25], np.float32), zero_point=np.zeros(2, np.int8))
STRICT = Encoding("i8", True, narrow=True, scale=np.array(0.5, np.float32), zero_point=np.array(0, np.int8))
UNSIGNED = Encoding("u8", True, unsigned=True, scale=np.array(2.0, np.float32), zero_point=np.array(0, np.uint8))
BLOCKS = Encoding("i4", True, 0, scale=np.array([[0.5, 1], [2, 4]], np.float32), zero_point=np.zeros((2, 2), np.int8),
                  block_axis=1, block_size=8)  # fmt: skip
POWER = LowPowerEncoding("i4", True, 0, scale=np.array([[0.5, 8], [2, 32]], np.float32),
                         zero_point=np.zeros((2, 2), np.int8), block_axis=1, block_size=8)  # fmt: skip
HALF = FloatEncoding("f16")


def grid_0_6_1(bits: int, symmetric: str, low: float, high: float, offset: int, scale: float) -> dict[str, Any]:
    return {"bitwidth": bits, "dtype": "int", "is_symmetric": symmetric, "max": high, "min": low, "offset": offset,
            "scale": scale}  # fmt: skip


def test_version_0_6_1() -> None:
    document = encodings_document(TensorEncodings({"x": U8, "s": STRICT, "p": UNSIGNED, "h": HALF}, {"w": I4}), "0.6.1")
    assert document["version"] == "0.6.1"
    assert document["activation_encodings"] == {
        "x": [grid_0_6_1(8, "False", -1.5, 126.0, -3, 0.5)],
        "s": [grid_0_6_1(8, "True", -63.5, 63.5, -127, 0.5)],
        "p": [grid_0_6_1(8, "True", 0.0, 510.0, 0, 2.0)],
        "h": [{"bitwidth": 16, "dtype": "float"}],
    }
    channels = [grid_0_6_1(4, "True", -4.0, 3.5, -8, 0.5), grid_0_6_1(4, "True", -2.0, 1.75, -8, 0.25)]
    assert document["param_encodings"] == {"w": channels}


def test_version_1_0_0() -> None:
    given = TensorEncodings({"x": U8, "h": HALF}, {"w": I4, "b": BLOCKS, "p": POWER}, {"param_bitwidth": 4}, ["fc"])
    document = encodings_document(given, "1.0.0")
    assert document["activation_encodings"] == [
        {"name": "x", "bw": 8, "dtype": "INT", "is_sym": False, "enc_type": "PER_TENSOR", "offset": [-3],
         "scale": [0.5]},
        {"name": "h", "bw": 16, "dtype": "FLOAT", "enc_type": "PER_TENSOR"},
    ]  # fmt: skip
    assert document["param_encodings"] == [
        {"name": "w", "bw": 4, "dtype": "INT", "is_sym": True, "enc_type": "PER_CHANNEL", "offset": [-8, -8],
         "scale": [0.5, 0.25]},
        {"name": "b", "bw": 4, "dtype": "INT", "is_sym": True, "enc_type": "PER_BLOCK", "block_size": 8,
         "offset": [-8, -8, -8, -8], "scale": [0.5, 1.0, 2.0, 4.0]},
        {"name": "p", "bw": 8, "dtype": "INT", "is_sym": True, "enc_type": "LPBQ", "block_size": 8, "compressed_bw": 4,
         "per_block_int_scale": [1, 16, 1, 16], "offset": [-128, -128], "scale": [0.5, 2.0]},
    ]  # fmt: skip
    assert document["quantizer_args"] == {"param_bitwidth": 4}
    assert document["excluded_layers"] == ["fc"]
    assert read_encodings(document).excluded_layers == ("fc",)


def test_versions_2() -> None:
    given = TensorEncodings({"x": U8, "h": HALF}, {"w": I4, "b": BLOCKS, "p": POWER})
    document = encodings_document(given, "2.0.0")
    assert document["producer"]["package"] == "qir"
    blocks = {"axis": 1, "block_size": 8, "output_dtype": "int4"}
    common = [
        {"name": "x", "output_dtype": "uint8", "y_scale": 0.5, "y_zero_point": 3},
        {"name": "w", "output_dtype": "int4", "y_scale": [0.5, 0.25], "axis": 0},
        {"name": "b", "y_scale": [[0.5, 1.0], [2.0, 4.0]], **blocks},
    ]
    integers = [[1, 16], [1, 16]]
    power = {"name": "p", "per_block_int_scale": integers, "per_channel_float_scale": [[0.5], [2.0]], **blocks}
    assert document["encodings"] == [*common, power]
    power = {"name": "p", "y_scale": {"x": integers, "x_scale": [0.5, 2.0], "axis": 0}, **blocks}
    assert encodings_document(given, "2.1.0")["encodings"] == [*common, power]


def test_the_examples_of_the_specification_are_read() -> None:
    power = {
        "name": "weight", "y_scale": {"x": [[3, 5], [11, 9], [7, 16]], "x_scale": [0.001, 0.002, 0.003], "axis": 0},
        "axis": 1, "block_size": 32, "output_dtype": "int4",
    }  # fmt: skip
    plain = {"name": "t", "y_scale": [0.01, 0.02, 0.03], "y_zero_point": [0, 0, 0], "axis": 0, "output_dtype": "int32"}
    found = read_encodings({"version": "2.1.0", "encodings": [power, plain]}).tensors().activations
    scale = np.array([[3], [11], [7]], np.float32) * np.array([[0.001], [0.002], [0.003]], np.float32)
    assert found["weight"].scale is not None
    assert found["t"].dtype == "i32"
    assert np.array_equal(found["weight"].scale[:, :1], scale)
    again = encodings_document(TensorEncodings({}, {"weight": found["weight"]}), "2.1.0")["encodings"][0]
    assert np.array_equal(
        np.float32(again["y_scale"]["x"]) * np.float32(again["y_scale"]["x_scale"])[:, None], found["weight"].scale
    )


def test_half_an_entry_is_completed() -> None:
    whole = grid_0_6_1(8, "False", -1.0, 4.1, -50, 0.02)
    scales = []
    for kept in ({"min", "max"}, {"offset", "scale"}):
        part = {key: whole[key] for key in whole if key in kept | {"bitwidth", "is_symmetric"}}
        document = {"version": "0.6.1", "activation_encodings": {"x": [part]}, "param_encodings": {}}
        found = read_encodings(document).tensors().activations["x"]
        assert found.zero_point == 50
        scales.append(found.scale)
    assert scales[0] == scales[1] == np.float32(0.02)


def test_a_strict_range_is_completed_as_one() -> None:
    grid = {"bitwidth": 8, "is_symmetric": "True", "min": -1.27, "max": 1.27}
    document = {"version": "0.6.1", "activation_encodings": {}, "param_encodings": {"w": [grid]}}
    found = read_encodings(document).tensors().parameters["w"]
    assert (found.dtype, found.narrow, found.scale, found.zero_point) == ("i8", True, np.float32(0.01), 0)


def test_an_adaround_file_holds_parameters() -> None:
    grid = {"bitwidth": 4, "is_symmetric": "True", "offset": -8, "scale": 0.5, "min": -4.0, "max": 3.5, "dtype": "int"}
    file = read_encodings({"conv.weight": [grid, grid]})
    assert file.version is None
    found = file.tensors().parameters["conv.weight"]
    assert (found.dtype, found.axis) == ("i4", 0)


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0"])
def test_encodings_by_layer_have_one_form(version: str) -> None:
    grid = grid_0_6_1(8, "False", -1.5, 126.0, -3, 0.5)
    document = {
        "version": version,
        "activation_encodings": {
            "conv1": {"input": {"0": grid}, "output": {"0": grid, "1": {"bitwidth": 16, "dtype": "float"}}},
        },
        "param_encodings": {"conv1.weight": [grid_0_6_1(4, "True", -4.0, 3.5, -8, 0.5)]},
        "excluded_layers": [], "quantizer_args": {"quant_scheme": "post_training_tf"},
    }  # fmt: skip
    found = read_encodings(document).tensors()
    assert {name: encoding.dtype for name, encoding in found.activations.items()} == {
        "conv1:input:0": "u8", "conv1:output:0": "u8", "conv1:output:1": "f16",
    }  # fmt: skip
    assert found.parameters["conv1.weight"].dtype == "i4"


def test_channel_axes_come_from_the_graph() -> None:
    given = replace(I4, axis=1)
    document = encodings_document(TensorEncodings({}, {"w": given}), "1.0.0")
    assert read_encodings(document).tensors().parameters["w"].axis == 0
    place = Place(uncalibrated(given), (3, 2), parameter=True)
    assert read_encodings(document).tensors({"w": place}).parameters["w"].axis == 1


def test_names_with_dots_are_quoted_in_paths() -> None:
    for grid, where in (({"bitwidth": 8, "scale": 0.0, "offset": 0}, ""), ({"bitwidth": "8"}, "[0].bitwidth")):
        document = {"version": "0.6.1", "activation_encodings": {}, "param_encodings": {"a.0.weight": [grid]}}
        with pytest.raises(QirError) as caught:
            read_encodings(document).tensors()
        assert f"$.param_encodings['a.0.weight']{where}: " in str(caught.value)


# -- refusals ----------------------------------------------------------------------------------------------------------


def good(version: str) -> dict[str, Any]:
    parameters = {"w": I4} if version == "0.6.1" else {"w": I4, "b": BLOCKS, "p": POWER}
    tensors = TensorEncodings({"x": U8}, parameters, {"quant_scheme": "min_max"}, ["fc"])
    return json.loads(json.dumps(encodings_document(tensors, version)))


PLACES = {name: Place(uncalibrated(grid), (2, 16), True) for name, grid in {"w": I4, "b": BLOCKS, "p": POWER}.items()}


def refused(source: Any, *words: str) -> QirError:
    with pytest.raises(QirError) as caught:
        read_encodings(source).tensors(PLACES)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


TEXTS = [
    ('{"version": "0.6.1", "version": "0.6.1"}', "$..version", "twice"),
    ('{"version": "1.0.0", "x": NaN}', "NaN is no JSON number"),
    ('{"version": "1.0.0", "x": -Infinity}', "-Infinity"),
    ("[" * 100000, "nested too deeply"),
    ('{"a": ' * 100000, "nested too deeply"),
    ('{"version": "1.0.0", "x": 1' + "0" * 6000 + "}", "too large"),
    ("[]", "holds no object"),
    ("", "is no JSON"),
    ('{"version": ', "is no JSON", "line 1"),
    ('{"version": "3.0.0"}', "$.version", "'3.0.0' is no known version", "0.6.1"),
    ('{"version": 1.0}', "$.version"),
    ("{}", "$.version"),
    ('{"version": "1.0.0", "activation_encodings": []}', "param_encodings", "missing"),
]


@pytest.mark.parametrize(("text", "words"), [(text, words) for text, *words in TEXTS])
def test_malformed_files_are_refused(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.encodings"
    path.write_text(text)
    refused(path, *words)


def test_a_missing_file_and_a_binary_one_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.encodings", "can not read")
    path = tmp_path / "x.encodings"
    path.write_bytes(b"\xff\xfe\x00")
    refused(path, "UTF-8")


def set_at(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    *parents, last = place
    target = document
    for key in parents:
        target = target[key]
    target[last] = value
    return document


EDITS = [
    ("0.6.1", ("activation_encodings", "x", 0, "scale"), 0.0, "$.activation_encodings.x", "not positive"),
    ("0.6.1", ("activation_encodings", "x", 0, "scale"), 1e300, "$.activation_encodings.x[0].scale", "float32"),
    ("0.6.1", ("activation_encodings", "x", 0, "scale"), "0.5", "$.activation_encodings.x"),
    ("0.6.1", ("activation_encodings", "x", 0, "offset"), 0.5, "$.activation_encodings.x[0].offset", "whole"),
    ("0.6.1", ("activation_encodings", "x", 0, "offset"), 5, "$.activation_encodings.x", "outside of 8 bits"),
    ("0.6.1", ("activation_encodings", "x", 0, "offset"), -256, "$.activation_encodings.x", "outside of 8 bits"),
    ("0.6.1", ("activation_encodings", "x", 0, "bitwidth"), 24, "$.activation_encodings.x", "24 bits"),
    ("0.6.1", ("activation_encodings", "x", 0, "bitwidth"), True, "$.activation_encodings.x"),
    ("0.6.1", ("activation_encodings", "x"), [], "$.activation_encodings.x"),
    ("0.6.1", ("activation_encodings", "x"), [{"bitwidth": 8}], "$.activation_encodings.x", "no scale"),
    ("0.6.1", ("activation_encodings", "x"), [{"bitwidth": 8, "scale": 1.0}], "$.activation_encodings.x[0]", "half"),
    ("0.6.1", ("activation_encodings", "x"), [{"bitwidth": 8, "min": 1.0, "max": 2.0}], "x[0]", "enclose zero"),
    ("0.6.1", ("param_encodings", "w", 0, "bitwidth"), 8, "$.param_encodings.w", "share"),
    ("0.6.1", ("param_encodings", "w", 0, "offset"), -5, "$.param_encodings.w", "symmetric"),
    ("0.6.1", ("param_encodings", "w"), [{"bitwidth": 8, "scale": 1.0, "offset": 0}] * 3, "3 scales", "should have 2"),
    ("1.0.0", ("param_encodings", 0, "scale"), [0.5] * 5, "$.param_encodings[0]", "5 scales", "should have 2"),
    ("1.0.0", ("param_encodings", 0, "scale"), [0.5, None], "$.param_encodings[0].scale", "number"),
    ("1.0.0", ("param_encodings", 0, "scale"), [[0.5, 0.5]], "$.param_encodings[0]", "flat"),
    ("1.0.0", ("param_encodings", 0, "offset"), [-8] * 3, "$.param_encodings[0]", "zero points"),
    ("1.0.0", ("param_encodings", 0, "name"), "x", "$.param_encodings[0]", "x stands here and at"),
    ("1.0.0", ("param_encodings", 0, "enc_type"), "VECTOR", "$.param_encodings[0].enc_type", "VECTOR"),
    ("1.0.0", ("param_encodings", 0, "enc_type"), "PER_TENSOR", "$.param_encodings[0]", "one scale"),
    ("1.0.0", ("param_encodings", 0, "is_sym"), "True", "$.param_encodings[0].is_sym", "boolean"),
    ("1.0.0", ("param_encodings", 0, "zero_point_shift"), [-0.5], "zero_point_shift", "fractional"),
    ("1.0.0", ("param_encodings", 2, "per_block_int_scale"), [0, 1, 1, 1], "$.param_encodings[2]", "from 1"),
    ("1.0.0", ("param_encodings", 2, "offset"), [-8, -8], "$.param_encodings[2]", "low-power"),
    ("1.0.0", ("activation_encodings", 0, "dtype"), "FLOAT", "$.activation_encodings[0]", "8 bits"),
    ("2.0.0", ("encodings", 1, "output_dtype"), "int33", "$.encodings[1].output_dtype", "int33"),
    ("2.0.0", ("encodings", 0), {"name": "x", "output_dtype": "int8"}, "$.encodings[0]", "'y_scale' is missing"),
    ("2.0.0", ("encodings", 3, "block_size"), "8", "$.encodings[3].block_size", "integer"),
    ("2.0.0", ("encodings", 1, "axis"), 9, "$.encodings[1].axis"),
    ("2.0.0", ("encodings", 1, "axis"), -3, "$.encodings[1]", "no axis -3"),
    ("2.0.0", ("encodings", 1, "axis"), None, "$.encodings[1]", "axis"),
    ("2.0.0", ("encodings", 1, "y_scale"), [[0.5], [0.5, 0.5]], "$.encodings[1].y_scale", "differ in length"),
    ("2.0.0", ("encodings", 1, "y_scale"), [], "$.encodings[1].y_scale"),
    ("2.0.0", ("encodings", 1, "y_scale"), "0.5", "$.encodings[1]"),
    ("2.0.0", ("encodings", 0, "y_zero_point"), -0.5, "$.encodings[0].y_zero_point", "fractional"),
    ("2.0.0", ("encodings", 0, "y_zero_point"), 256, "$.encodings[0]", "outside of 8 bits"),
    ("2.1.0", ("encodings", 3, "y_scale", "x_scale"), [0.5], "$.encodings[3]", "2 positive channel scales"),
    ("2.1.0", ("encodings", 3, "y_scale", "input_dtype"), "float8e4m3fn", "$.encodings[3].y_scale"),
    ("2.1.0", ("encodings", 3, "block_size"), None, "$.encodings[3]", "block_size"),
    ("2.1.0", ("encodings", 3, "y_scale", "x"), [[[[[[[[[[1]]]]]]]]]], "$.encodings[3]"),
]  # fmt: skip


@pytest.mark.parametrize(("version", "place", "value", "words"), [(v, p, x, words) for v, p, x, *words in EDITS])
def test_what_does_not_fit_is_refused_with_its_place(version: str, place: Any, value: Any, words: list[str]) -> None:
    read_encodings(good(version)).tensors(PLACES)
    refused(set_at(good(version), place, value), *words)


def test_what_can_not_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.encodings"
    eight = replace(FloatEncoding("f8e4m3"), scale=np.array(1, np.float32))
    cases: list[tuple[Encoding, str, str]] = [
        (Encoding("u8"), "1.0.0", "not calibrated"),
        (eight, "0.6.1", "no place"), (eight, "1.0.0", "no place"), (BLOCKS, "0.6.1", "no place"),
        (U8, "0.7", "version"),
        (replace(POWER, scale=np.array([[0.3, 0.7123], [0.2, 0.5321]], np.float32)), "1.0.0", "4 bits"),
    ]  # fmt: skip
    for encoding, version, word in cases:
        with pytest.raises(QirError, match=word):
            write_encodings(path, TensorEncodings({}, {"w": encoding}), version)
    with pytest.raises(QirError, match="JSON"):
        write_encodings(path, TensorEncodings({}, {}, {"scheme": object()}), "1.0.0")
    assert not path.exists()


def places_in(document: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = document.items() if isinstance(document, dict) else ()
    items = enumerate(document) if isinstance(document, list) else items
    return [before, *(place for key, value in items for place in places_in(value, (*before, key)))]


JUNK = st.sampled_from([None, True, -1, 0, 7, 2**40, 1e-50, 1e308, 0.5, "", "int8", "True", [], [1], [[1, 2], [3, 4]],
                        {}, {"x": [[1]], "x_scale": 1.0}, [None], ["a"], -(2**31), [-8, -8], 16, "float16",
                        "LPBQ"])  # fmt: skip


@given(st.sampled_from(VERSIONS), st.data())
@settings(max_examples=400, deadline=None)
def test_mutated_files_give_encodings_or_one_error(version: str, data: st.DataObject) -> None:
    document = good(version)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places_in(document)[1:]))
        if data.draw(st.booleans()):
            set_at(document, place, deepcopy(data.draw(JUNK)))
        else:
            target = document
            for key in place[:-1]:
                target = target[key]
            del target[place[-1]]
    for known in ({}, PLACES):
        try:
            found = read_encodings(document).tensors(known)
        except QirError:
            continue
        for encoding in (*found.activations.values(), *found.parameters.values()):
            assert encoding.calibrated
            assert encoding.scale is None or np.all(encoding.scale > 0)
