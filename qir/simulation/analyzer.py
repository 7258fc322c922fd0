"""`QuantAnalyzer`: how much the quantizers of a torch model cost, with AIMET's names and arguments."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qir.analysis.results import Analysis
from qir.api.analyze import analyze
from qir.errors import QirError
from qir.pages.analysis import write_analysis
from qir.simulation.quantsim import QuantizationSimModel
from qir.simulation.schemes import QuantScheme

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class CallbackFunc:
    """A function that is called with a model and these arguments."""

    func: Callable[[Any, Any], Any]
    func_callback_args: Any = None

    def __call__(self, model: Any) -> Any:
        """Call it."""
        return self.func(model, self.func_callback_args)


class QuantAnalyzer:
    """Analyzes how sensitive a model is to quantization, on the data that `forward_pass_callback` runs.

    `eval_callback` rates a model with a number, the more the better. The layers of `modules_to_ignore`, modules of the
    model, stay in float.
    """

    def __init__(
        self,
        model: nn.Module,
        dummy_input: Any,
        forward_pass_callback: CallbackFunc,
        eval_callback: CallbackFunc,
        modules_to_ignore: Collection[nn.Module] | None = None,
    ) -> None:
        self.model, self.dummy_input = model, dummy_input
        self.forward_pass_callback, self.eval_callback = forward_pass_callback, eval_callback
        for callback in (forward_pass_callback, eval_callback):
            if not isinstance(callback, CallbackFunc):
                raise QirError(f"a callback is a CallbackFunc and not a {type(callback).__name__}",
                               help="give CallbackFunc(function, arguments)")  # fmt: skip
        self.ignored = list(modules_to_ignore or ())
        self.batches: list[Any] | None = None

    def enable_per_layer_mse_loss(self, unlabeled_dataset_iterable: Iterable[Any], num_batches: int) -> None:
        """Analyze on these batches in the place of those that `forward_pass_callback` runs."""
        self.batches = list(islice(unlabeled_dataset_iterable, num_batches))

    def analyze(
        self,
        quant_scheme: QuantScheme | str = QuantScheme.post_training_tf_enhanced,
        default_param_bw: int = 8,
        default_output_bw: int = 8,
        config_file: str | Path | None = None,
        results_dir: str | Path = "./tmp/",
        *,
        samples: int = 64,
        jobs: int = 1,
    ) -> Analysis:
        """The analysis of the model as `QuantizationSimModel` quantizes it, written into `results_dir` too.

        There are `analysis.json`, `analysis.html` where plotly is installed, and AIMET's `per_layer_quant_enabled.json`
        and `per_layer_quant_disabled.json`: the score with the quantizers of one layer on, and off, by layer. A call
        that was interrupted goes on where it stopped.
        """
        sim = QuantizationSimModel(self.model, self.dummy_input, quant_scheme, default_output_bw=default_output_bw,
                                   default_param_bw=default_param_bw, config_file=config_file)  # fmt: skip
        paths = [path for path, module in self.model.named_modules() if any(module is other for other in self.ignored)]
        sim.exclude_layers_from_quantization(paths)
        seen = self._calibrate(sim, samples)
        folder = Path(results_dir)
        found = analyze(sim, self.batches or seen, evaluate=self.eval_callback, samples=samples, jobs=jobs,
                        folder=folder)  # fmt: skip
        write_analysis(found, folder, {f"per_layer_quant_{name}.json": _scores(found, side)
                                       for name, side in (("enabled", "alone"), ("disabled", "without"))})  # fmt: skip
        return found

    def _calibrate(self, sim: QuantizationSimModel, samples: int) -> list[Any]:
        """Let the callback calibrate the simulator; the first batches that it runs, with so many samples at least."""
        import torch

        seen: list[Any] = []
        count = 0

        def look(module: Any, args: Any, kwargs: Any) -> None:
            nonlocal count
            if count < samples:
                seen.append(kwargs if kwargs else list(args))
                first = next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)), None)
                count += int(first.shape[0]) if first is not None and first.ndim else 1

        hook = sim.model.register_forward_pre_hook(look, with_kwargs=True)
        try:
            sim.compute_encodings(lambda model, _: self.forward_pass_callback(model))
        finally:
            hook.remove()
        return seen


def _scores(found: Analysis, side: str) -> str:
    scores = {layer.name: getattr(layer, side).score for layer in found.layers if layer.quantizers}
    return json.dumps(scores, indent=1) + "\n"
