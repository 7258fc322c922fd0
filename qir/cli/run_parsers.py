"""The parsers of the commands that find out what a pipeline does: replay, bisect, run, reproduce."""

from __future__ import annotations

from qir.cli.bisect import bisect_model
from qir.cli.parsing import EVALUATOR, FILE, PASSES, RECORD, Commands, command
from qir.cli.replay import replay_log
from qir.cli.run import reproduce, run_file
from qir.execution import EVALUATORS


def add_run_parsers(found: Commands) -> None:
    """Add the four commands."""
    _add_replay(found)
    _add_bisect(found)
    _add_run(found)
    _add_reproduce(found)


def _add_replay(found: Commands) -> None:
    help = "run a recorded pipeline again, and say which step is the first that differs from the log"
    examples = "run.qirlog\nrun.qirlog --list\nrun.qirlog --show 17\nrun.qirlog --to 17 -o there.qir"
    made = command(found, "replay", replay_log, help, examples)
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
    made = command(found, "bisect", bisect_model, help, examples)
    made.add_argument("model", metavar="MODEL", help=f"{FILE}, or package.module:function that returns a torch module")
    made.add_argument("-p", "--passes", required=True, metavar="PASSES", help=PASSES)
    made.add_argument("--inputs", metavar="FILE", help="an .npz or .npy file: what the model is evaluated on")
    made.add_argument("--data", metavar="DATA", help="calibration data; without --inputs, the first batch is those too")
    metric = "equal (the default), sqnr in decibels, or package.module:function, which is given what runs a graph"
    made.add_argument("--metric", default="equal", help=metric)
    made.add_argument("--threshold", type=float, metavar="T", help="the lowest measure that is good")
    made.add_argument("--evaluator", choices=EVALUATORS, help=EVALUATOR)


def _add_run(found: Commands) -> None:
    help = "execute a run: a TOML file with model, data, passes, target and what to write"
    made = command(found, "run", run_file, help, "net.toml\nnet.toml --same-versions --record run.qirlog -o build")
    made.add_argument("file", metavar="TOML", help="the run")
    made.add_argument("--folder", metavar="FOLDER", help="where its files are (default: the folder of the run)")
    made.add_argument("-o", "--output", metavar="FOLDER", help="where to write (default: beside its files)")
    made.add_argument("--same-versions", action="store_true", help="refuse other versions than those of the run")
    made.add_argument("--record", metavar="QIRLOG", help=RECORD)


def _add_reproduce(found: Commands) -> None:
    help = "write a file that `qir run` wrote again, from what it says about itself, and compare"
    made = command(found, "reproduce", reproduce, help, "net.int8.onnx\nbuild/report.json --folder inputs")
    made.add_argument("file", metavar="FILE", help="an ONNX file, a JSON file or a page")
    made.add_argument("--folder", default=".", metavar="FOLDER", help="where the run's files are (default: here)")
    made.add_argument("--same-versions", action="store_true", help="refuse other versions than those of the run")
