"""What a user calls for Keras models. Keras is imported on use."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pipeline
from qir.weights import Weight

if TYPE_CHECKING:
    import keras


def is_keras(model: Any) -> bool:
    """Whether it is a Keras model; on the torch backend those are torch modules, too."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def imported_keras(model: keras.Model, input_layer: Any = None) -> Graph:
    """The graph of a Keras model, with the fewest Transposes, its convolutions padding what they read themselves."""
    from qir.frontends.keras_model import import_keras

    return Pipeline.parse("move-transposes,fold-padding").run(import_keras(model, input_layer))


def keras_simulator(graph: Graph) -> keras.Model:
    """A Functional model that computes a calibrated graph, rounding where it has quantizers, and trains with `fit`."""
    from qir.backends.keras_quantized import emit_quantized_keras

    return emit_quantized_keras(graph)


def with_trained_weights(graph: Graph, trained: Any) -> Graph:
    """A copy of the graph with the weights of `trained`: a Keras or torch simulator of it, or a Keras model from one.

    Raises QirError for a torch module that has none of the graph's weights.
    """
    if is_keras(trained):
        from qir.backends.keras_quantized import trained_graph

        return trained_graph(graph, trained)
    state, found = trained.state_dict(), graph.copy()
    values = [value for value in found.weights() if value.weight and state.keys() & value.weight.paths[:1]]
    if not values:
        raise QirError("the module has no weight of this graph", help="give quantized.simulator() after training")
    for value in values:
        assert value.weight is not None
        array = state[value.weight.paths[0]].detach().cpu().numpy()
        value.weight = Weight(array, value.weight.paths, trainable=value.weight.trainable)
    return found


def write_back(graph: Graph, model: keras.Model) -> None:
    """Write the weights of a graph that was trained into the Keras model that it was imported from.

    Batch norms that were folded into the layers before them come out of them again.
    """
    from qir.backends.keras_variables import write_back as assign

    assign(imported_keras(model), graph)


def prepare_keras(
    model: keras.Model,
    input_layer: Any = None,
    modules_to_exclude: Any = None,
    module_classes_to_exclude: Sequence[type] | None = None,
    example_inputs: Any = None,
) -> keras.Model:
    """A flat Functional model that computes what `model` computes, in inference and in training.

    Every computation is a layer called once. Keras's own layers are copies that keep their names, where no other has
    the same; a function of `keras.ops` is a layer `module_<function>`; further calls of a layer are layers
    `module_<layer>_<n>` that share its weights. Layers and models of other classes are opened, however deep they lie,
    but for those in `modules_to_exclude` and of the classes (exactly) in `module_classes_to_exclude`. Inputs and
    outputs are arranged as in `model`, the parts of a `call` with several arguments as a list. The model is not
    changed.

    `input_layer` (a `keras.Input`, or a list or dict of them) is for a subclassed model that was never called; it may
    stand in the second place. Both models are run on `example_inputs`, a nest like the inputs, or on random samples of
    the right dtypes, and must return the same within a millionth. Raises QirError, showing the user's line, where the
    model's code can not be followed.
    """
    import keras

    from qir.api.preparation import PREPARE
    from qir.backends.keras_check import check_equal
    from qir.backends.keras_model import emit_keras
    from qir.frontends.keras_model import import_whole_calls
    from qir.frontends.keras_trace import is_keras_own

    tensors = [leaf for leaf in keras.tree.flatten(modules_to_exclude) if isinstance(leaf, keras.KerasTensor)]
    if input_layer is None and tensors:
        input_layer, modules_to_exclude = modules_to_exclude, None

    def whole(layer: keras.Layer) -> bool:
        excluded = any(layer is other for other in modules_to_exclude or ())
        return is_keras_own(layer) or excluded or type(layer) in (module_classes_to_exclude or ())

    graph = import_whole_calls(model, input_layer, whole)
    Pipeline.parse(PREPARE).run(graph)
    prepared = emit_keras(graph)
    check_equal(model, prepared, graph, example_inputs, _seeded)
    return prepared


@contextmanager
def _seeded() -> Iterator[None]:
    """Inside, torch draws the same random numbers each time; the other backends of Keras keep no state of their own."""
    import keras

    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        yield


class _AfterKeras:
    """Registers qir's layers right after Keras is imported, so that saved models with them load."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Where the others find Keras, with a loader that registers the layers in the end."""
        if name != "keras":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def loaded(module: ModuleType) -> None:
                load(module)
                register_layers()

            spec.loader.exec_module = loaded  # type: ignore[method-assign]
        return spec


def register_layers() -> None:
    """Make the layers of emitted Keras models known to Keras: now where it is loaded, else as soon as it is."""
    if "keras" in sys.modules:
        import qir.backends.keras_layers  # noqa: F401
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())
