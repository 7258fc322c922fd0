"""Graph text reads as what was printed, and whatever else is read ends in a graph or in a QirError with a place."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from strategies import graphs, types

from qir import Graph, QirError, parse
from qir.types import Type, parse_type

EXAMPLE = """\
graph @"my net"(%x: f32[N,3,8,8], %"odd name": f32["a, b",?], %z: ?) {
  %conv.weight = weight conv.weight, "tied to" : f32[4,3,3,3] #0123456789abcdef trainable transient
  %c = constant f32[2](1.0, -inf)
  %conv = Conv %x, %conv.weight {kernel_shape=(3, 3)} : f32[N,4,6,6] [conv] @ "my net.py":41 (a), (b)
  %q = qir.Quantize %conv {encoding=$q} : f32[N,4,6,6] @ net.py:41
  %relu = Relu %q : f32[N,4,6,6] [module_relu] !3 @ net.py:42 (block)
  %clip = Clip %relu, _, 6.0 : f32[N,4,6,6]
  %r = Reshape %clip, i64[2](1, -1) : f32[1,?]
  %o, %p = torch.foo.bar %r, %c, %c {args=(%0, [%1, {"a": %2}], slice(None, 1, None), torch.f32, "q\\"\\n")} : ?, int
  %b = qir.Quantize %p {encoding=$b} : ?
  return {"a": %o, "b": (%b, None, True)}
  $q = u8 asymmetric scale=0.5 zero_point=3
  $b = i32 product $q $factor
  $factor = i8 symmetric narrow axis=0 scale=[0.25, 1.0] zero_point=[0, 0]
}
"""


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_text_reads_as_the_graph_that_printed_it(graph: Graph) -> None:
    text = str(graph)
    again = parse(text)
    assert again == graph
    assert str(again) == text


@settings(max_examples=300, deadline=None)
@given(types())
def test_any_type_reads_as_itself(type: Type) -> None:
    assert parse_type(str(type)) == type


def test_the_example_is_in_its_printed_form() -> None:
    assert str(parse(EXAMPLE)) + "\n" == EXAMPLE


def test_comments_and_blank_lines_say_nothing() -> None:
    commented = "// first\n\n" + EXAMPLE.replace("(a), (b)\n", "(a), (b)  // why\n  // more\n")
    assert parse(commented) == parse(EXAMPLE)


def test_two_slashes_in_a_string_begin_no_comment() -> None:
    text = 'graph @g(%x: ?) {\n  %y = torch.f %x {a="b  // c"} : ?\n  return %y\n}'
    assert str(parse(text)) == text


def test_a_small_constant_read_twice_is_one_value() -> None:
    graph = parse(EXAMPLE)
    (call,) = (node for node in graph.nodes() if node.op == "torch.foo.bar")
    assert call.operands[1] is call.operands[2]


def test_quantizers_that_name_one_encoding_share_it() -> None:
    text = "graph @g(%x: ?) {\n"
    text += (
        "".join(f"  %{n} = qir.Quantize %x {{encoding=$a}} : ?\n" for n in "ab")
        + "  return %a, %b\n  $a = u8 asymmetric\n}"
    )
    first, second = parse(text).nodes()
    assert first.attrs["encoding"] is second.attrs["encoding"]


@pytest.mark.parametrize(
    ("line", "place", "message"),
    [
        ("  %y = Rel %x : ?", "2:8", "no operator is called 'Rel'"),
        ("  %y = Relu %q : ?", "2:13", "%q is not defined yet"),
        ("  %x = Relu %x : ?", "2:3", "%x is defined twice"),
        ("  %y = Relu %x, %x : ?", "2:8", "reads at most 1"),
        ("  %y = Relu %x : f32[", "2:18", "expected a type"),
        ("  %y = Relu %x : f31[1]", "2:18", "expected a type"),
        ("  %y = LeakyRelu %x {alpha=} : ?", "2:28", "expected a value"),
        ("  %y = LeakyRelu %x {beta=1.0} : ?", "2:8", "has no attribute 'beta'"),
        ("  %y = LeakyRelu %x {alpha=1.0, alpha=2.0} : ?", "2:33", "given twice"),
        ("  %y, %z = Relu %x : ?", "2:23", "2 results need 2 types"),
        ('  %y = torch.f %x {a="\\q"} : ?', "2:22", "escape"),
        ("  %y = qir.Quantize %x {encoding=$e} : ?", "2:34", "$e is not declared"),
        ("  %y = Relu %x : ? !first", "2:21", "rank"),
        ("  %y = Add %x, f32[2](1.0) : ?", "2:16", "1 elements do not make a f32[2]"),
        ("  %y = Relu %x : ? nonsense", "2:20", "nothing may follow here"),
        ("  %w = weight w : f32[1] #xyz", "2:27", "16 hexadecimal digits"),
        ("  %y = torch.f {a=" + "[" * 200 + "} : ?", "2:119", "brackets stand inside each other"),
    ],
)
def test_a_mistake_is_shown_with_line_and_column(line: str, place: str, message: str) -> None:
    with pytest.raises(QirError) as caught:
        parse(f"graph @g(%x: ?) {{\n{line}\n  return %x\n}}")
    assert caught.value.stage == f"text:{place}"
    assert message in str(caught.value)
    column = int(place.partition(":")[2]) - 1
    shown, below = str(caught.value.snippet).split("\n")
    assert shown == line
    assert below.index("^") == column


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ("$e = u8 asymmetric scale=0.0 zero_point=0", "scales are positive"),
        ("$e = u8 asymmetric scale=0.5 zero_point=300", "scales are positive"),
        ("$e = u8 asymmetric scale=0.5", "a scale with a zero_point or neither"),
        ("$e = u8 asymmetric axis=0 scale=0.5 zero_point=0", "list of scales if it has an axis"),
        ("$e = f32 symmetric", "not an integer dtype"),
        ("$e = u8 lopsided", "an encoding has no 'lopsided'"),
        ("$e = i32 product $e $e", "$e is not declared"),
        ("$e = i17 symmetric", "not an integer dtype"),
        ("$e = i4 symmetric block_axis=0", "both an axis and a size"),
        ("$e = i4 symmetric block_axis=0 block_size=2 scale=[1.0] zero_point=[[0]]", "one zero_point for each"),
        ("$e = i4 symmetric axis=1 block_axis=0 block_size=2 scale=[1.0] zero_point=[0]", "list of scales if"),
        ("$e = i4 symmetric scale_bits=4", "a low-power grid has blocks"),
        ("$e = i4 symmetric=1", "is a dtype, flags"),
        ("$e = u8 asymmetric unsigned", "only a symmetric grid"),
        ("$e = u8 asymmetric axis=0.5", "axis and sizes that are numbers"),
        ("$e = u8 asymmetric axis=0 scale=[1.0, [2.0]] zero_point=[0, 0]", "scales are positive"),
        ("$e = bf16 symmetric", "no more than an axis and a scale"),
        ("$e = f8e4m3 scale=1.0 zero_point=0", "no more than an axis and a scale"),
    ],
)
def test_an_encoding_that_can_not_be_is_refused(declaration: str, message: str) -> None:
    with pytest.raises(QirError) as caught:
        parse(f"graph @g(%x: ?) {{\n  return %x\n  {declaration}\n}}")
    assert message in str(caught.value)
    assert str(caught.value.stage).startswith("text:3:")


@pytest.mark.parametrize(
    "text", ["", "\n// nothing\n", "graph", "graph @g() {", "graph @g() {\n}", "graph @g() {\n return\n"]
)
def test_text_that_ends_too_early_is_refused(text: str) -> None:
    with pytest.raises(QirError, match="text:"):
        parse(text)


def mutated(text: str, random: random.Random) -> str:
    """`text` with one to three small accidents."""
    alphabet = "%$@#!{}[]()<>\"'\\,:=_-+.?/ \n\t0123456789aefinNxé²\u2028\x00"
    for _ in range(random.randint(1, 3)):
        lines = text.split("\n")
        at, line = random.randrange(len(text) + 1), random.randrange(len(lines))
        match random.randrange(8):
            case 0:
                text = text[:at] + text[at + random.randint(1, 4) :]
            case 1:
                text = text[:at] + random.choice(alphabet) * random.choice([1, 1, 1, 2, 9]) + text[at:]
            case 2:
                text = text[:at] + random.choice(alphabet) + text[at + 1 :]
            case 3:
                text = text[:at]
            case 4:
                text = "\n".join(lines[:line] + lines[line + 1 :])
            case 5:
                other = random.randrange(len(lines))
                lines[line], lines[other] = lines[other], lines[line]
                text = "\n".join(lines)
            case 6:
                text = "\n".join([*lines[:line], lines[line], *lines[line:]])
            case 7:
                words = text.split(" ")
                one, two = random.randrange(len(words)), random.randrange(len(words))
                words[one] = words[two]
                text = " ".join(words)
        text = text or EXAMPLE
    return text


def check_mutations(count: int, seed: int) -> int:
    """How many of the mutations of the example still were graphs."""
    source, graphs = random.Random(seed), 0
    for _ in range(count):
        text = mutated(EXAMPLE, source)
        try:
            graph = parse(text)
        except QirError as error:
            refused = str(error.stage)
        else:
            refused = ""
            graphs += 1
            assert str(parse(str(graph))) == str(graph)
        assert not refused or refused.startswith("text:")
    return graphs


def test_damaged_text_is_a_graph_or_an_error_with_a_place() -> None:
    assert 100 < check_mutations(4000, seed=0) < 3900
