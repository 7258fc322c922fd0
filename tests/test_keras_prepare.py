"""prepare_model on Keras models: one flat Functional model that computes the same and lives on as Keras's models do."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import qir
from tests.keras_models import CASES, Affine, Case, DeepCnn, Residual, flat


def same(one: Any, other: Any) -> bool:
    """Whether two nests are arranged alike and hold the same bits."""
    keras.tree.assert_same_structure(one, other)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


@pytest.fixture(autouse=True)
def _names_from_the_beginning() -> None:
    keras.utils.clear_session()


@pytest.fixture(params=CASES, name="case")
def _case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@cache
def pair(case: Case) -> tuple[keras.Model, keras.Model]:
    """The model and the prepared one, for tests that change neither."""
    model = case.model()
    return model, case.prepared(model)


def test_a_prepared_model_returns_the_same_bits(case: Case) -> None:
    model, prepared = pair(case)
    for seed in (1, 2):
        inputs = case.sample(seed)
        assert same(case.run(model, inputs), prepared(inputs))


def test_every_computation_is_a_layer_called_once(case: Case) -> None:
    _, prepared = pair(case)
    assert all(isinstance(operation, layers.Layer) for operation in prepared.operations)
    assert not any(isinstance(layer, keras.Model | layers.Lambda) for layer in prepared.layers)
    assert len({layer.name for layer in prepared.layers}) == len(prepared.layers)
    assert not any(type(layer).__module__.startswith("tests.") for layer in prepared.layers)
    for layer in prepared.layers:
        assert len(keras.tree.flatten(layer.output)) >= 1  # raises for a layer that is called twice


def test_a_prepared_model_has_the_weights_of_its_model(case: Case) -> None:
    model, prepared = pair(case)
    assert len(prepared.weights) == len(model.weights)
    assert prepared.count_params() == model.count_params()
    assert len(prepared.trainable_weights) == len(model.trainable_weights)
    assert {v.name for v in prepared.weights} == {v.name for v in model.weights}


def test_a_prepared_model_is_saved_and_loaded(case: Case, tmp_path: Path) -> None:
    _, prepared = pair(case)
    prepared.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    inputs = case.sample(1)
    assert all(map(np.array_equal, flat(prepared(inputs)), flat(loaded(inputs))))
    assert len(loaded.weights) == len(prepared.weights)


def test_a_prepared_model_does_the_same_in_training(case: Case) -> None:
    model = case.model()
    prepared = case.prepared(model)
    for seed in (1, 2):
        inputs = case.sample(seed)
        assert same(case.run(model, inputs, training=True), prepared(inputs, training=True))
    inputs = case.sample(3)
    assert same(case.run(model, inputs), prepared(inputs))  # what training changed is the same, too


def test_a_model_is_not_changed_by_preparing_it(case: Case) -> None:
    model = case.model()
    before = [np.array(ops.convert_to_numpy(variable)) for variable in model.variables]
    attributes = [dict(vars(layer)) for layer in model._flatten_layers()]
    case.prepared(model)
    assert all(np.array_equal(a, ops.convert_to_numpy(b)) for a, b in zip(before, model.variables, strict=True))
    for was, layer in zip(attributes, model._flatten_layers(), strict=True):
        assert {name: id(value) for name, value in was.items()} == {n: id(v) for n, v in vars(layer).items()}


@pytest.mark.parametrize("name", ["nested_classes", "tied", "nested", "modes"])
def test_a_prepared_model_trains_as_its_model_does(name: str) -> None:
    case = CASES[name]
    model = case.model()
    inputs, targets = case.sample(1), flat(case.run(model, case.sample(2)))[0] * 0.5
    prepared = case.prepared(model)
    losses = []
    for each in (model, prepared):
        each.compile(optimizer=keras.optimizers.SGD(0.001), loss="mse")
        losses.append(
            each.fit(inputs, targets, epochs=3, batch_size=len(targets), shuffle=False, verbose=0).history["loss"]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] != losses[0][0]
    assert np.allclose(flat(model(inputs))[0], flat(prepared(inputs))[0], atol=1e-5)


def test_further_calls_share_the_weights_also_after_loading(tmp_path: Path) -> None:
    prepared = qir.prepare_model(CASES["arithmetic"].model())
    prepared.save(tmp_path / "model.keras")
    for model in (prepared, keras.models.load_model(tmp_path / "model.keras")):
        inputs = CASES["arithmetic"].sample(1)
        before = flat(model(inputs))
        (scale,) = (variable for variable in model.weights if variable.name == "scale")
        scale.assign(np.zeros(scale.shape))
        assert not any(map(np.array_equal, before, flat(model(inputs))))
        assert len([variable for variable in model.weights if variable.name == "scale"]) == 1


def test_layers_stay_whole_on_request() -> None:
    model = CASES["arithmetic"].model()
    by_class = qir.prepare_model(model, module_classes_to_exclude=[Affine])
    by_layer = qir.prepare_model(model, [model.affine])
    for prepared in (by_class, by_layer):
        assert [type(layer) for layer in prepared.layers].count(Affine) == 1
        assert "module_affine_1" in {layer.name for layer in prepared.layers}
        assert same(prepared(CASES["arithmetic"].sample(1)), model(CASES["arithmetic"].sample(1)))


def test_names_do_not_depend_on_what_was_made_before() -> None:
    def names() -> list[str]:
        keras.utils.clear_session()
        return [layer.name for layer in qir.prepare_model(CASES["nested_classes"].model()).layers]

    first = names()
    assert names() == first
    assert {"conv2d", "batch_normalization", "global_average_pooling2d", "dense", "dropout"} <= set(first)


def test_layers_of_one_name_are_told_apart_by_those_around_them() -> None:
    names = {layer.name for layer in qir.prepare_model(CASES["nested"].model()).layers}
    assert {"outer", "inner_dense", "head_dense", "module_dense_1", "add", "re_lu"} <= names


def test_a_model_that_was_never_called_takes_an_input_layer() -> None:
    for given in (keras.Input((8, 8, 4)), keras.Input((8, 8, 4), name="image")):
        for prepared in (qir.prepare_model(DeepCnn(), input_layer=given), qir.prepare_model(DeepCnn(), given)):
            assert prepared.input_shape == (None, 8, 8, 4)
    two = qir.prepare_model(CASES["several"].make(), input_layer=[keras.Input((3,)), keras.Input((4,))])
    assert [tensor.shape for tensor in two.input] == [(None, 3), (None, 4)]
    named = {"first": keras.Input((3,), name="first"), "second": keras.Input((4,), name="second")}
    assert set(qir.prepare_model(CASES["several"].make(), input_layer=named).input) == {"first", "second"}
    ids = qir.prepare_model(CASES["tied"].make(), input_layer=keras.Input((6,), dtype="int64"))
    assert ids.input.dtype == "int64"


def test_inputs_that_only_index_are_integers() -> None:
    assert qir.prepare_model(CASES["tied"].model()).input.dtype == "int32"
    assert qir.prepare_model(CASES["nested_classes"].model()).input.dtype == "float32"


def test_own_examples_are_used_where_samples_do_not_fit() -> None:
    class OneHot(keras.Model):
        def call(self, x: Any) -> Any:
            return ops.one_hot(ops.cast(x, "int32"), 5)

    model = OneHot()
    model(np.zeros(3, "int32"))
    prepared = qir.prepare_model(model, example_inputs=np.array([4, 1], "int32"))
    assert same(prepared(np.array([2, 0], "int32")), model(np.array([2, 0], "int32")))


def test_a_prepared_model_is_prepared_to_itself() -> None:
    prepared = qir.prepare_model(CASES["arithmetic"].model())
    again = qir.prepare_model(prepared)
    inputs = CASES["arithmetic"].sample(1)
    assert same(prepared(inputs), again(inputs))
    assert len(again.weights) == len(prepared.weights)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["qir", "keras"])
def test_saved_models_load_in_another_process(first: str, tmp_path: Path) -> None:
    case = CASES["arithmetic"]
    prepared = case.prepared(case.model())
    prepared.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=case.sample(1), y=flat(prepared(case.sample(1)))[0])
    code = (
        f"import {first}, sys, numpy\nassert '{first}' == 'keras' or 'keras' not in sys.modules\nimport qir, keras\n"
        f"data = numpy.load(r'{tmp_path / 'data.npz'}')\n"
        f"model = keras.models.load_model(r'{tmp_path / 'model.keras'}')\n"
        "assert (keras.ops.convert_to_numpy(model(data['x'])[0]) == data['y']).all()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_an_inherited_call_is_opened_with_super() -> None:
    model = keras.Sequential([keras.Input((6, 6, 2)), Residual(2)])
    kinds = [type(layer).__name__ for layer in qir.prepare_model(model).layers]
    assert kinds.count("Conv2D") == kinds.count("BatchNormalization") == 1


def test_losses_of_layers_are_kept_or_refused() -> None:
    kept = keras.Sequential([keras.Input((3,)), layers.Dense(2, activity_regularizer="l2", kernel_regularizer="l1")])
    prepared = qir.prepare_model(kept)
    kept(np.ones((2, 3))), prepared(np.ones((2, 3)))
    assert [float(loss) for loss in kept.losses] == [float(loss) for loss in prepared.losses]
    lost = keras.Sequential([keras.Input((3,)), Affine(activity_regularizer="l2")])
    with pytest.raises(qir.QirError, match="the prepared model computes something else"):
        qir.prepare_model(lost)
    whole = qir.prepare_model(lost, module_classes_to_exclude=[Affine])
    assert "Affine" in {type(layer).__name__ for layer in whole.layers}
