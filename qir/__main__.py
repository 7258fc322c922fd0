"""The command `qir`."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Callable, Sequence
from typing import TypeAlias, get_args

from qir import cli_commands as commands
from qir import cli_ship as ship
from qir.cli_bisect import bisect_model
from qir.cli_encodings import encodings
from qir.cli_new_pass import write_new_pass
from qir.cli_quantize import quantize_model
from qir.cli_replay import replay_log
from qir.cli_targets import targets
from qir.cli_view import view_model
from qir.encodings_file import VERSIONS
from qir.errors import QirError
from qir.execution import EVALUATORS
from qir.placements import DEFAULT_TARGET
from qir.range_search import MethodName

FILE = "graph text (.qir, or - for standard input) or an ONNX model"
PASSES = 'passes with their options: "fold-batch-norm,insert-quantizers{scheme=minmax}"'
RECORD = "write every rewrite to this file, for qir replay"
EVALUATOR = "what runs the graph (default: the first of these that is installed)"
TARGET = f"the name or the file of a target profile (default: {DEFAULT_TARGET})"

Commands: TypeAlias = "_SubParsersAction[ArgumentParser]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0, 2 for what the user can mend, 130 when interrupted."""
    try:
        arguments = parser().parse_args(argv)
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
    _add_replay(found)
    _add_bisect(found)
    _add_quantize(found)
    _add_lint(found)
    _add_certify(found)
    _add_targets(found)
    _add_encodings(found)
    _add_view(found)
    return top


def _command(found: Commands, name: str, run: Callable[[Namespace], None], help: str, examples: str) -> ArgumentParser:
    made: ArgumentParser = found.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  qir {name} {example}" for example in examples.splitlines()),
        formatter_class=RawDescriptionHelpFormatter,
    )
    made.set_defaults(run=run)
    return made


def _add_opt(found: Commands) -> None:
    examples = (
        'net.onnx -p "fold-batch-norm" -o folded.onnx\n'
        "net.qir -p fold-batch-norm --verify-each --print-after all\n"
        "net.onnx -p fold-batch-norm --same-numbers inputs.npz --timing -o net.qir"
    )
    made = _command(found, "opt", commands.opt, "run passes over a graph, and print it or write it", examples)
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
    made = _command(found, "passes", commands.passes, help, "\nfold-batch-norm")
    made.add_argument("name", nargs="?", metavar="PASS", help="describe this pass in full")


def _add_new_pass(found: Commands) -> None:
    help = "write the files that a new pass begins with: the pass, its golden file, and its test, which passes"
    made = _command(found, "new-pass", write_new_pass, help, "drop-clamps\ndrop-clamps --folder my_package")
    made.add_argument("name", metavar="NAME", help="words in lower case with - between them: fold-batch-norm")
    made.add_argument("--folder", default=".", metavar="FOLDER", help="where to write them (default: here)")


def _add_explain(found: Commands) -> None:
    help = "say what a pass does to a graph, node by node, and why it leaves nodes alone"
    examples = (
        "fold-batch-norm net.onnx\nunroll-modules,fold-batch-norm net.qir\ninsert-quantizers net.qir --tensor 'relu*'"
    )
    made = _command(found, "explain", commands.explain, help, examples)
    made.add_argument("passes", metavar="PASS", help="a pass, after those that must run before it: a,b,PASS")
    made.add_argument("file", metavar="FILE", help=FILE)
    made.add_argument("--tensor", metavar="NAME", help="say it of the tensors with this name, which may have * and ?")


def _add_show(found: Commands) -> None:
    made = _command(found, "show", commands.show, "print a graph as text", "net.onnx\nnet.qir --summary")
    made.add_argument("file", metavar="FILE", help=FILE)
    made.add_argument("--summary", action="store_true", help="operators counted, inputs, outputs, weights, quantizers")


def _add_verify(found: Commands) -> None:
    made = _command(found, "verify", commands.check, "check everything that must be true of a graph", "net.onnx\n-")
    made.add_argument("file", metavar="FILE", help=FILE)


def _add_quantize(found: Commands) -> None:
    help = "quantize a model for a target, calibrate it on data, and write an integer ONNX file"
    examples = (
        "net.onnx --data calib.npz -o net.int8.onnx\n"
        "package.module:build_model --data package.module:batches --target ort-x86-avx2 -o net.int8.onnx\n"
        'net.onnx --data folder/ --method percentile --exclude "head.*" --report report.html -o net.int8.onnx'
    )
    made = _command(found, "quantize", quantize_model, help, examples)
    made.add_argument("model", metavar="MODEL", help=f"{FILE}, or package.module:function that returns a torch module")
    data = "an .npz or .npy file, samples first; a folder of those; or package.module:function that yields batches"
    made.add_argument("--data", required=True, metavar="DATA", help=data)
    made.add_argument("-o", "--output", required=True, metavar="OUT", help="the ONNX file to write")
    made.add_argument("--target", default=DEFAULT_TARGET, help=TARGET)
    made.add_argument("--method", choices=get_args(MethodName), help="how ranges are found (default: min-max)")
    made.add_argument("--percentile", type=float, metavar="P", help="where the method percentile cuts")
    per_channel = "a scale for each output channel of weights, or one for all (default: as the target says)"
    made.add_argument("--per-channel", action=BooleanOptionalAction, help=per_channel)
    made.add_argument("--output-bw", type=int, metavar="BITS", help="the width of activations")
    made.add_argument("--param-bw", type=int, metavar="BITS", help="the width of weights")
    made.add_argument("--rules", metavar="TOML", help="a file of rules: mixed precision, and what stays in float")
    made.add_argument("--exclude", action="append", metavar="GLOB", help="layers that stay in float; repeatable")
    made.add_argument("--report", metavar="HTML", help="write the parity certificate as a page")
    made.add_argument("--json", metavar="JSON", help="write the summary as JSON")
    made.add_argument("--record", metavar="QIRLOG", help=RECORD)


def _add_replay(found: Commands) -> None:
    help = "run a recorded pipeline again, and say which step is the first that differs from the log"
    examples = "run.qirlog\nrun.qirlog --list\nrun.qirlog --show 17\nrun.qirlog --to 17 -o there.qir"
    made = _command(found, "replay", replay_log, help, examples)
    made.add_argument("log", metavar="QIRLOG", help="a log that --record wrote")
    made.add_argument("--model", metavar="MODEL", help="the model, where it is not where the log says")
    made.add_argument("--data", metavar="DATA", help="its calibration data, where they are not where the log says")
    made.add_argument("--list", action="store_true", help="list the steps of the log, and run nothing")
    made.add_argument("--show", type=int, metavar="STEP", help="print a step of the log, and run nothing")
    made.add_argument("--to", type=int, metavar="STEP", help="end after this step, and print the graph or write it")
    made.add_argument("-o", "--output", metavar="OUT", help="write the graph to OUT.qir or OUT.onnx")


def _add_bisect(found: Commands) -> None:
    help = "name the first pass, and its first rewrite, that puts a model beyond a threshold"
    examples = (
        "net.onnx -p fold-batch-norm,legalize-onnx --inputs x.npz --metric sqnr --threshold 60\n"
        "package.module:build -p PASSES --data x.npy --metric package.module:accuracy --threshold 0.75"
    )
    made = _command(found, "bisect", bisect_model, help, examples)
    made.add_argument("model", metavar="MODEL", help=f"{FILE}, or package.module:function that returns a torch module")
    made.add_argument("-p", "--passes", required=True, metavar="PASSES", help=PASSES)
    made.add_argument("--inputs", metavar="FILE", help="an .npz or .npy file: what the model is evaluated on")
    made.add_argument("--data", metavar="DATA", help="calibration data; without --inputs, the first batch is those too")
    metric = "equal (the default), sqnr in decibels, or package.module:function, which is given what runs a graph"
    made.add_argument("--metric", default="equal", help=metric)
    made.add_argument("--threshold", type=float, metavar="T", help="the lowest measure that is good")
    made.add_argument("--evaluator", choices=EVALUATORS, help=EVALUATOR)


def _add_lint(found: Commands) -> None:
    help = "say what a target computes of a quantized model with integers, and why not the rest"
    made = _command(found, "lint", ship.lint_model, help, "net.int8.onnx\nnet.int8.onnx --target ort-x86-avx2 --json")
    made.add_argument("file", metavar="FILE", help=FILE)
    made.add_argument("--target", default=DEFAULT_TARGET, help=TARGET)
    made.add_argument("--all", action="store_true", help="show the operators that compute with integers, too")
    made.add_argument("--json", action="store_true", help="print every verdict as JSON")


def _add_certify(found: Commands) -> None:
    help = "compare the integer simulator, onnxruntime and the ONNX reference on a quantized model"
    examples = "net.int8.onnx\nnet.int8.onnx --data test.npz --labels labels.npy --report parity.html"
    made = _command(found, "certify", ship.certify_model, help, examples)
    made.add_argument("file", metavar="FILE", help="a quantized ONNX model")
    made.add_argument("--target", default=DEFAULT_TARGET, help=TARGET)
    made.add_argument("--data", metavar="NPZ", help="inputs by name (default: random ones)")
    made.add_argument("--labels", metavar="NPY", help="a class for each sample: the accuracy of every run")
    made.add_argument("--samples", type=int, default=4, metavar="N", help="how many samples to run (default: 4)")
    made.add_argument("--report", metavar="HTML", help="write a page with the histograms of all differences")
    made.add_argument("--json", metavar="JSON", help="write everything as JSON")


def _add_targets(found: Commands) -> None:
    help = "list the target profiles, show one, or say what two do differently"
    made = _command(found, "targets", targets, help, "\nshow ort-x86-vnni\ndiff ort-x86-vnni mine.toml")
    made.add_argument("what", nargs="?", choices=("list", "show", "diff"), default="list")
    made.add_argument("names", nargs="*", metavar="NAME", help="a profile's name, or its .toml file")


def _add_encodings(found: Commands) -> None:
    help = "print the scales and zero points of a calibrated graph as an AIMET encodings file"
    made = _command(found, "encodings", encodings, help, "net.qir\nnet.qir --version 2.0.0 -o net.encodings")
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
    made = _command(found, "view", view_model, help, examples)
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
