"""`QuantizationSimModel`: a torch model whose tensors are rounded as the quantized model will round them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qir.api.quantize import Quantized
from qir.encodings.apply import Applied, apply_encodings, encodings_of, torch_encodings
from qir.encodings.encoding import Encoding, ProductEncoding
from qir.encodings.file import EncodingsFile, encodings_document, read_encodings, write_document
from qir.encodings.tensor_names import paths_of
from qir.errors import QirError
from qir.graph import Graph, Node
from qir.placement.options import DEFAULT_TARGET
from qir.placement.targets import target as profile_of
from qir.progress import track
from qir.quantizers import is_fixed, quantizers, within_clamps
from qir.simulation.construction import arguments_of, emitted, placement, prepared
from qir.simulation.export import export_simulation
from qir.simulation.layers import SimulatedLayer, layers_of, table_of
from qir.simulation.schemes import QuantizationDataType, QuantScheme
from qir.watch import Outcomes

if TYPE_CHECKING:
    from torch import fx, nn


class QuantizationSimModel:
    """A simulator of the quantized model, with AIMET's names and arguments.

    `model` is an ordinary torch module: a layer for every computation, and a quantizer for every tensor that is
    rounded, at paths such as `conv1.weight_quantizer` and `conv1.output_quantizer`. `graph` is what it was emitted
    from. Rounding is ONNX's: a true division by the scale, then to the nearest integer, ties to even.
    """

    model: fx.GraphModule
    graph: Graph

    def __init__(
        self,
        model: nn.Module | Graph,
        dummy_input: Any = None,
        quant_scheme: QuantScheme | str = QuantScheme.post_training_tf_enhanced,
        rounding_mode: str = "nearest",
        default_output_bw: int = 8,
        default_param_bw: int = 8,
        in_place: bool = False,
        config_file: str | Path | None = None,
        default_data_type: QuantizationDataType = QuantizationDataType.int,
        *,
        target: str | None = None,
    ) -> None:
        """Prepare `model` where it is not prepared yet, and put quantizers where the config file or the target says.

        `dummy_input` is a tensor, a sequence of positional arguments or a mapping of keyword arguments. `config_file`
        is an AIMET config (AIMET's default one when neither it nor `target` is given); `target` is the name or the file
        of a profile, whose kernels then decide what is quantized and how. With `in_place` the simulator trains the very
        parameters of `model`; otherwise it has its own. A graph is a model too.

        Raises QirError for arguments that contradict each other and for a model that can not be imported.
        """
        self.scheme = QuantScheme.of(quant_scheme)
        self.percentile = 99.99
        self.target = target
        self.frozen: set[str] = set()
        if rounding_mode != "nearest":
            raise QirError(f"there is no rounding mode {rounding_mode!r}", help="quantizers round to 'nearest'")
        if config_file is not None and target is not None:
            raise QirError("both a config file and a target say where quantizers go", help="give one of them")
        self.pipeline = placement(target, config_file, default_output_bw, default_param_bw, default_data_type)
        self.graph = prepared(model, dummy_input)
        outcomes = Outcomes()
        self.pipeline.run(self.graph, [outcomes])
        self.notes = [note for outcome in outcomes.kept for note in outcome.missed]
        self.frozen |= {node.module or "" for node in quantizers(self.graph) if is_fixed(node)}
        self.model = emitted(self.graph, model, in_place)

    def compute_encodings(
        self,
        forward_pass_callback: Callable[..., Any] | Iterable[Any],
        forward_pass_callback_args: Any = None,
    ) -> None:
        """Give every quantizer a scale and zero point that fit what its tensor holds.

        The callback is called once as `callback(model, args)`, in evaluation mode and without gradients, and runs the
        model on data of its choice; tensors are not rounded while it does. Batches of an iterable are tensors,
        sequences of positional arguments or mappings of keyword arguments; their samples are run one by one, so the
        result depends neither on the order of the data nor on how it was split. After a clamp the grid ends within its
        limits, so that the clamp is free. Frozen quantizers keep theirs. Range-learning schemes then make scales
        trainable.

        Raises QirError when a tensor holds NaN or an infinity, or never saw data.
        """
        from qir.backends.torch_calibration import calibrate_module
        from qir.backends.torch_quantizers import learn_ranges, quantizers_of
        from qir.backends.torch_samples import one_by_one

        def run() -> None:
            if callable(forward_pass_callback):
                forward_pass_callback(self.model, forward_pass_callback_args)
                return
            batches = map(arguments_of, track(forward_pass_callback, "calibrating"))
            for positional, keywords in one_by_one(self.model, batches):
                self.model(*positional, **keywords)

        encodings = calibrate_module(self.model, run, self.scheme.method, percentile=self.percentile, keep=self.frozen)
        found, sharing = dict(quantizers_of(self.model)), dict[Encoding, list[Node]]()
        for node in quantizers(self.graph):
            if (encoding := encodings.get(node.module or "")) is not None:
                sharing.setdefault(encoding, []).append(node)
        for encoding, nodes in sharing.items():
            found[nodes[0].module or ""].set_encoding(within_clamps(encoding, nodes))
        if self.scheme.learned:
            learn_ranges(self.model, keep=self.frozen)

    def set_percentile_value(self, percentile_value: float) -> None:
        """Let the scheme `percentile` cut at this percentile, between 90 and 100. Raises QirError for another."""
        if not 90 <= percentile_value <= 100:
            raise QirError(f"a percentile of {percentile_value} cuts too much", help="give one between 90 and 100")
        self.percentile = float(percentile_value)

    def layers(self) -> list[SimulatedLayer]:
        """Every layer with its quantizers, in the order of execution."""
        return list(layers_of(self.graph, self.model))

    def quant_wrappers(self) -> Iterator[tuple[str, SimulatedLayer]]:
        """The path of every layer that has a quantizer, and the layer."""
        for layer in self.layers():
            found = [*layer.input_quantizers, *layer.output_quantizers, *layer.param_quantizers.values()]
            if any(quantizer is not None for quantizer in found):
                yield layer.name, layer

    named_qmodules = quant_wrappers

    def qmodules(self) -> Iterator[SimulatedLayer]:
        """Every layer that has a quantizer."""
        return (layer for _, layer in self.quant_wrappers())

    def exclude_layers_from_quantization(self, layers_to_exclude: Sequence[nn.Module | str]) -> None:
        """Leave what these layers hold and write in float; containers stand for all layers below them.

        A layer is a module of `self.model`, or its path. Raises QirError for a module that is not there.
        """
        paths = [self._path_of(layer) for layer in layers_to_exclude]
        for layer in self.layers():
            if any(path in ("", layer.name) or layer.name.startswith(f"{path}.") for path in paths):
                self._disable([*layer.output_quantizers, *layer.param_quantizers.values()])

    def exclude_param_from_quantization(self, param_name_to_exclude: str) -> None:
        """Leave the parameters with this name, `bias` for instance, in float in every layer."""
        for layer in self.layers():
            self._disable([layer.param_quantizers.get(param_name_to_exclude)])

    def _disable(self, found: Iterable[Any]) -> None:
        """Disable quantizers, and those of biases whose grids follow from theirs."""
        for quantizer in found:
            if quantizer is not None:
                quantizer.enabled = False
        modules = dict(self.model.named_modules(remove_duplicate=False))
        nodes = [(node.attrs["encoding"], modules[node.module or ""]) for node in quantizers(self.graph)]
        rounding = {encoding for encoding, quantizer in nodes if quantizer.enabled}
        for encoding, quantizer in nodes:
            if isinstance(encoding, ProductEncoding) and not {encoding.input, encoding.weight} <= rounding:
                quantizer.enabled = False

    def _path_of(self, layer: nn.Module | str) -> str:
        for path, module in self.model.named_modules(remove_duplicate=False):
            if layer is module or layer == path:
                return str(path)
        name = repr(layer) if isinstance(layer, str) else type(layer).__name__
        raise QirError(f"the simulator has no layer {name}", help="give modules of sim.model, or their paths")

    def __str__(self) -> str:
        return table_of(self.layers())

    def load_encodings(
        self,
        encodings: str | Path | Mapping[str, Any],
        strict: bool = True,
        partial: bool = True,
        requires_grad: bool | None = None,
        allow_overwrite: bool = True,
    ) -> None:
        """Let quantizers hold the encodings of a file (or of the object in it), found by the names of their tensors.

        Unless `partial`, quantizers that the file does not name are disabled. `requires_grad` makes the scales
        trainable, or constant; without `allow_overwrite`, they are frozen: nothing computes or loads them anew. Frozen
        quantizers keep theirs. Raises QirError, changing nothing, for a file that is empty or malformed and, when
        `strict`, for one that does not fit the simulator.
        """
        from qir.backends.torch_quantizers import freeze_ranges, learn_ranges, quantizers_of

        found = dict(quantizers_of(self.model))
        applied = self._apply(read_encodings(encodings), strict)
        taken = {node.module or "" for node in applied.taken}
        if not partial:
            self._disable(found[node.module or ""] for node in applied.missing)
        if requires_grad:
            learn_ranges(self.model, keep=set(found) - taken)
        elif requires_grad is not None:
            for path in taken:
                freeze_ranges(found[path])
        if not allow_overwrite:
            self.frozen |= taken

    def set_and_freeze_param_encodings(self, encoding_path: str | Path | Mapping[str, Any]) -> None:
        """Let the quantizers of parameters hold the encodings of a file, and keep them from then on.

        Raises QirError for a file that is empty or malformed or names other parameters.
        """
        file = read_encodings(encoding_path)
        parameters = {path for node in quantizers(self.graph) for path in paths_of(node)}
        chosen = tuple(entry for entry in file.entries if entry.parameter or entry.name in parameters)
        applied = self._apply(replace(file, entries=chosen), strict=True)
        self.frozen |= {node.module or "" for node in applied.taken}

    def _apply(self, file: EncodingsFile, strict: bool) -> Applied:
        from qir.backends.torch_quantizers import quantizers_of
        from qir.backends.torch_snapshot import snapshot

        graph = snapshot(self.graph, self.model)
        kept = [node for node in quantizers(graph) if node.module in self.frozen]
        applied = apply_encodings(graph, file, strict=strict, frozen=kept)
        found = dict(quantizers_of(self.model))
        for node in applied.taken:
            found[node.module or ""].set_encoding(node.attrs["encoding"])
        return applied

    def encodings(self, version: str = "1.0.0") -> dict[str, Any]:
        """The encodings as AIMET's document of this version, by the names of tensors in the exported ONNX file."""
        from qir.backends.torch_snapshot import snapshot

        return encodings_document(encodings_of(snapshot(self.graph, self.model), **self._about()), version)

    def get_activation_param_encodings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The entries of activations by layer and those of parameters by path, as in `<prefix>_torch.encodings`."""
        from qir.backends.torch_snapshot import snapshot

        document = torch_encodings(snapshot(self.graph, self.model))
        return document["activation_encodings"], document["param_encodings"]

    def save_encodings_to_json(self, path: str | Path, filename_prefix: str) -> None:
        """Write the encodings by layer to `<filename_prefix>.json` in the folder `path`, whole or not at all."""
        from qir.backends.torch_snapshot import snapshot

        document = torch_encodings(snapshot(self.graph, self.model), **self._about())
        write_document(Path(path) / f"{filename_prefix}.json", document)

    def export(
        self,
        path: str | Path,
        filename_prefix: str,
        dummy_input: Any = None,
        onnx_export_args: Mapping[str, Any] | None = None,
        propagate_encodings: bool = False,
        export_to_torchscript: bool = False,
        use_embedded_encodings: bool = False,
        export_model: bool = True,
        filename_prefix_encodings: str | None = None,
        *,
        version: str = "1.0.0",
        format: Literal["encodings", "qdq"] = "encodings",
    ) -> list[Path]:
        """Write the float model, its ONNX file and the encodings into the folder `path`; see `export_simulation`.

        `version` is that of the encodings; `format="qdq"`, which `use_embedded_encodings` stands for too, writes the
        ONNX file with its quantizers instead. `onnx_export_args` may hold `opset_version`; `dummy_input` is not needed,
        for shapes are known. Every quantized tensor has an entry, so `propagate_encodings` changes nothing. Returns
        the paths.

        Raises QirError, writing nothing, for a simulator that is not calibrated and for what can not be written.
        """
        options = dict(onnx_export_args or {})
        opset = options.pop("opset_version", None) or profile_of(self.target or DEFAULT_TARGET).opset
        refused = ["export_to_torchscript"] * export_to_torchscript + ["export_model=False"] * (not export_model)
        if options or refused:
            help = "onnx_export_args may hold opset_version; save_encodings_to_json writes encodings alone"
            raise QirError(f"export knows no {', '.join([*options, *refused])}", help=help)
        return export_simulation(
            self.graph, self.model, path, filename_prefix, version=version, opset=opset,
            format="qdq" if use_embedded_encodings else format,
            encodings_prefix=filename_prefix_encodings, **self._about(),
        )  # fmt: skip

    def _about(self) -> dict[str, Any]:
        return {"quantizer_args": {"quant_scheme": self.scheme.name, "pipeline": str(self.pipeline)}}

    def quantized(self) -> Quantized:
        """The simulator as it is now, as a calibrated graph: integer simulator, QDQ ONNX model."""
        from qir.backends.torch_snapshot import snapshot

        return Quantized(snapshot(self.graph, self.model), profile_of(self.target or DEFAULT_TARGET), self.pipeline)
