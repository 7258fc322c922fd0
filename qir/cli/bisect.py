"""What the command `bisect` does."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from qir.api.bisect import trial
from qir.batches import load_batch, peeked
from qir.errors import QirError
from qir.runs.bisection import Culprit, Trial, first_beyond
from qir.runs.inputs import batches_for, function_at, model_of


def bisect_model(arguments: Namespace) -> None:
    """Name the step that puts a model beyond the threshold; exit code 1 when there is one."""
    if arguments.inputs is None and arguments.data is None:
        raise QirError("there is nothing to evaluate the model on", help="give --inputs FILE, or --data DATA")
    model, metric, data = model_of(arguments.model), arguments.metric, None
    if arguments.data is not None:
        first, data = peeked(batches_for(model, arguments.data))
    inputs = first if arguments.inputs is None else load_batch(Path(arguments.inputs))
    wanted = function_at(metric) if ":" in metric else metric
    judge = trial(model, arguments.passes, inputs, wanted, arguments.threshold, data, arguments.evaluator)
    culprit = first_beyond(judge)
    if culprit is None:
        print(f"the end of the run is within the threshold: {judge.shown(judge.measured[judge.course.end])}")
        print(f"{len(judge.measured)} evaluations of the model")
        return
    print("\n".join(as_text(culprit, judge)))
    sys.exit(1)


def as_text(culprit: Culprit, judge: Trial) -> Iterator[str]:
    """The culprit in lines for a terminal."""
    passes = len(judge.course.pipeline.passes)
    yield f"pass {culprit.position} of {passes}, {culprit.step.within}: {_which(culprit)}"
    if culprit.line:
        yield f"  --> {culprit.line}"
    yield from (f"  - {text}" for text in culprit.step.before)
    yield from (f"  + {text}" for text in culprit.step.after)
    if culprit.tensor is not None:
        yield f"the first tensor beyond the threshold is %{culprit.tensor}"
    before, after, least = map(judge.shown, (culprit.before, culprit.after, judge.threshold))
    yield f"before it {before}, behind it {after}, and the threshold is {least}"
    parts = f", and {culprit.parts} of single tensors" if culprit.parts else ""
    yield f"{culprit.evaluations} evaluations of the model{parts}"


def _which(culprit: Culprit) -> str:
    if culprit.rewrite is not None:
        return f"rewrite {culprit.rewrite} of {culprit.rewrites}, {culprit.step.rule} (step {culprit.step.number})"
    return f"what it does beside its {culprit.rewrites} rewrites" if culprit.rewrites else "the pass as a whole"
