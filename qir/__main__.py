"""The command `qir`."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import get_args

from qir.calibration.range_search import MethodName
from qir.cli import graph_commands, judge
from qir.cli.analyze import add_options, analyze_model
from qir.cli.encodings import encodings
from qir.cli.new_pass import write_new_pass
from qir.cli.parsing import EVALUATOR, FILE, PASSES, RECORD, TARGET, Commands, command
from qir.cli.quantize import quantize_model
from qir.cli.run_parsers import add_run_parsers
from qir.cli.targets import targets
from qir.cli.view import view_model
from qir.encodings.file import VERSIONS
from qir.errors import QirError
from qir.execution import EVALUATORS
from qir.placement.options import DEFAULT_TARGET


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0, 2 for what the user can mend, 130 when interrupted."""
    try:
        given = sys.argv[1:] if argv is None else argv
        if any("\0" in part for part in given):
            raise QirError("an argument holds a NUL character", help="no path and no name has one")
        arguments = parser().parse_args(given)
        arguments.run(arguments)
        sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    except QirError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone; without this, the interpreter complains about it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def parser() -> ArgumentParser:
    """The parser of all commands."""
    top = ArgumentParser(
        "qir",
        description="A compiler for neural-network quantization. The weights of net.qir lie in net.safetensors.",
        epilog="examples:\n  qir show net.onnx --summary\n  qir opt net.onnx -p legalize-onnx\n  qir passes",
        formatter_class=RawDescriptionHelpFormatter,
    )
    found = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_opt(found)
    _add_passes(found)
    _add_new_pass(found)
    _add_explain(found)
    _add_show(found)
    _add_verify(found)
    add_run_parsers(found)
    _add_quantize(found)
    _add_analyze(found)
    _add_lint(found)
    _add_certify(found)
    _add_targets(found)
    _add_encodings(found)
    _add_view(found)
    return top


def _add_opt(found: Commands) -> None:
    examples = (
        'net.onnx -p "fold-batch-norm" -o folded.onnx\n'
        "net.qir -p fold-batch-norm --verify-each --print-after all\n"
        "net.onnx -p fold-batch-norm --same-numbers inputs.npz --timing -o net.qir"
    )
    made = command(found, "opt", graph_commands.opt, "run passes over a graph, and print it or write it", examples)
    made.add_argument("file", metavar="FILE", help=FILE)
    made.add_argument("-p", "--passes", default="", metavar="PASSES", help=PASSES)
    made.add_argument("-o", "--output", metavar="OUT", help="write to OUT.qir (weights to OUT.safetensors) or OUT.onnx")
    made.add_argument(
        "--print-after",
        action="append",
        metavar="PASS",
        help="print the graph after this pass, or all; repeatable",
    )
    made.add_argument("--verify-each", action="store_true", help="verify the graph after every pass")
    made.add_argument("--stop-after", metavar="PASS", help="end after this pass, or after so many")
    made.add_argument("--timing", action="store_true", help="say how long every pass took")
    made.add_argument("--record", metavar="QIRLOG", help=RECORD)
    made.add_argument(
        "--same-numbers", metavar="NPZ", help="run the graph on these inputs around every pass and compare all tensors"
    )
    made.add_argument("--evaluator", choices=EVALUATORS, help=EVALUATOR)


def _add_passes(found: Commands) -> None:
    help = "list the passes, their options, and the facts that they need, give and break"
    made = command(found, "passes", graph_commands.passes, help, "\nfold-batch-norm")
    made.add_argument("name", nargs="?", metavar="PASS", help="describe this pass in full")


def _add_new_pass(found: Commands) -> None:
    help = "write the files that a new pass begins with: the pass, its golden file, and its test, which passes"
    made = command(found, "new-pass", write_new_pass, help, "drop-clamps\ndrop-clamps --folder my_package")
    made.add_argument("name", metavar="NAME", help="words in lower case with - between them: fold-batch-norm")
    made.add_argument("--folder", default=".", metavar="FOLDER", help="where to write them (default: here)")


def _add_explain(found: Commands) -> None:
    help = "say what a pass does to a graph, node by node, and why it leaves nodes alone"
    examples = (
        "fold-batch-norm net.onnx\nunroll-modules,fold-batch-norm net.qir\ninsert-quantizers net.qir --tensor 'relu*'"
    )
    made = command(found, "explain", graph_commands.explain, help, examples)
    made.add_argument("passes", metavar="PASS", help="a pass, after those that must run before it: a,b,PASS")
    made.add_argument("file", metavar="FILE", help=FILE)
    made.add_argument("--tensor", metavar="NAME", help="say it of the tensors with this name, which may have * and ?")
    made.add_argument("--json", action="store_true", help="print the reasons about nodes and tensors as JSON")


def _add_show(found: Commands) -> None:
    made = command(found, "show", graph_commands.show, "print a graph as text", "net.onnx\nnet.qir --summary")
    made.add_argument("file", metavar="FILE", help=FILE)
    made.add_argument("--summary", action="store_true", help="operators counted, inputs, outputs, weights, quantizers")


def _add_verify(found: Commands) -> None:
    made = command(
        found, "verify", graph_commands.check, "check everything that must be true of a graph", "net.onnx\n-"
    )
    made.add_argument("file", metavar="FILE", help=FILE)


def _add_quantize(found: Commands) -> None:
    help = "quantize a model for a target, calibrate it on data, and write an integer ONNX file"
    examples = (
        "net.onnx --data calib.npz -o net.int8.onnx\n"
        "package.module:build_model --data package.module:batches --target ort-x86-avx2 -o net.int8.onnx\n"
        'net.onnx --data folder/ --method percentile --exclude "head.*" --report report.html -o net.int8.onnx'
    )
    made = command(found, "quantize", quantize_model, help, examples)
    made.add_argument("-o", "--output", required=True, metavar="OUT", help="the ONNX file to write")
    _add_quantization(made)
    made.add_argument("--report", metavar="HTML", help="write the parity certificate as a page")
    made.add_argument("--json", metavar="JSON", help="write the summary as JSON")
    made.add_argument("--record", metavar="QIRLOG", help=RECORD)


def _add_analyze(found: Commands) -> None:
    help = "say what each quantizer and each layer of a quantized model costs, and which grids do not fit their tensors"
    examples = (
        "net.int8.onnx --data test.npz -o net.analysis\n"
        "package.module:build_model --data calib.npz --labels labels.npy -o net.analysis\n"
        "net.onnx --data calib.npz --metric package.module:top5 --labels labels.npy --jobs 4 -o net.analysis"
    )
    made = command(found, "analyze", analyze_model, help, examples)
    _add_quantization(made)
    add_options(made)


def _add_quantization(made: ArgumentParser) -> None:
    """The model, its data, and how it is quantized."""
    made.add_argument("model", metavar="MODEL", help=f"{FILE}, or package.module:function that returns a torch module")
    data = "an .npz or .npy file, samples first; a folder of those; or package.module:function that yields batches"
    made.add_argument("--data", required=True, metavar="DATA", help=data)
    made.add_argument("--target", default=DEFAULT_TARGET, help=TARGET)
    made.add_argument("--method", choices=get_args(MethodName), help="how ranges are found (default: min-max)")
    made.add_argument("--percentile", type=float, metavar="P", help="where the method percentile cuts")
    per_channel = "a scale for each output channel of weights, or one for all (default: as the target says)"
    made.add_argument("--per-channel", action=BooleanOptionalAction, help=per_channel)
    made.add_argument("--output-bw", type=int, metavar="BITS", help="the width of activations")
    made.add_argument("--param-bw", type=int, metavar="BITS", help="the width of weights")
    made.add_argument("--rules", metavar="TOML", help="a file of rules: mixed precision, and what stays in float")
    made.add_argument("--exclude", action="append", metavar="GLOB", help="layers that stay in float; repeatable")


def _add_lint(found: Commands) -> None:
    help = "say what a target computes of a quantized model with integers, and why not the rest"
    made = command(found, "lint", judge.lint_model, help, "net.int8.onnx\nnet.int8.onnx --target ort-x86-avx2 --json")
    made.add_argument("file", metavar="FILE", help=FILE)
    made.add_argument("--target", default=DEFAULT_TARGET, help=TARGET)
    made.add_argument("--all", action="store_true", help="show the operators that compute with integers, too")
    made.add_argument("--json", action="store_true", help="print every verdict as JSON")


def _add_certify(found: Commands) -> None:
    help = "compare the integer simulator, onnxruntime and the ONNX reference on a quantized model"
    examples = "net.int8.onnx\nnet.int8.onnx --data test.npz --labels labels.npy --report parity.html"
    made = command(found, "certify", judge.certify_model, help, examples)
    made.add_argument("file", metavar="FILE", help="a quantized ONNX model")
    made.add_argument("--target", default=DEFAULT_TARGET, help=TARGET)
    made.add_argument("--data", metavar="NPZ", help="inputs by name (default: random ones)")
    made.add_argument("--labels", metavar="NPY", help="a class for each sample: the accuracy of every run")
    made.add_argument("--samples", type=int, default=4, metavar="N", help="how many samples to run (default: 4)")
    made.add_argument("--report", metavar="HTML", help="write a page with the histograms of all differences")
    made.add_argument("--json", metavar="JSON", help="write everything as JSON")


def _add_targets(found: Commands) -> None:
    help = "list the target profiles, show one, or say what two do differently"
    made = command(found, "targets", targets, help, "\nshow ort-x86-vnni\ndiff ort-x86-vnni mine.toml")
    made.add_argument("what", nargs="?", choices=("list", "show", "diff"), default="list")
    made.add_argument("names", nargs="*", metavar="NAME", help="a profile's name, or its .toml file")


def _add_encodings(found: Commands) -> None:
    help = "print the scales and zero points of a calibrated graph as an AIMET encodings file"
    made = command(found, "encodings", encodings, help, "net.qir\nnet.qir --version 2.0.0 -o net.encodings")
    made.add_argument("file", metavar="FILE", help=FILE)
    made.add_argument("--version", default="1.0.0", choices=VERSIONS, help="the form of the file (default: 1.0.0)")
    made.add_argument("-o", "--output", metavar="OUT", help="write to this file")


def _add_view(found: Commands) -> None:
    help = "write a model as one HTML page, with what every pass does to it, or as an SVG picture"
    examples = (
        "net.onnx -o net.html\n"
        'net.qir -p "fold-batch-norm,legalize-onnx" --stages -o net.html\n'
        "package.module:build_model --data calib.npz --stages --serve"
    )
    made = command(found, "view", view_model, help, examples)
    made.add_argument("model", metavar="MODEL", help=f"{FILE}, or package.module:function that returns a torch module")
    made.add_argument("-p", "--passes", metavar="PASSES", help=PASSES)
    stages = "show what every pass does, not the whole alone; without -p, the passes of `qir quantize`"
    made.add_argument("--stages", action="store_true", help=stages)
    data = "as of `qir quantize`: calibrates, and shows histograms and signal-to-noise ratios"
    made.add_argument("--data", metavar="DATA", help=data)
    made.add_argument("--target", default=DEFAULT_TARGET, help=TARGET)
    made.add_argument("--analysis", metavar="JSON", help="what `qir analyze` wrote, to be shown beside nodes")
    made.add_argument("-o", "--output", metavar="OUT", help="write to OUT.html or OUT.svg")
    serve = "serve the page to browsers on this machine (default: at a free port)"
    made.add_argument("--serve", nargs="?", type=int, const=0, metavar="PORT", help=serve)


if __name__ == "__main__":
    sys.exit(main())
