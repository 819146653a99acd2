# `make demo` and `make test` need only Python (3.10 or newer), git and make: each makes its own environment.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint types unit train clean

help:
	@echo "make demo   install, then run every step on the trained digits model (about 2 minutes)"
	@echo "make test   install, then run ruff, mypy and pytest"
	@echo "make train  train the two digits models again (about 40 minutes on two cores)"
	@echo "make clean  remove the environment and everything built"

demo: $(READY)
	$(BIN)/morvit-deploy demo -o build/demo --force

test: lint types unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy --strict on the built package, then on the scripts: docs/decisions.md says why not on the editable install
types: $(READY)
	rm -rf build/types build/lib  # setuptools would package what was removed since
	$(BIN)/pip install --quiet --no-deps --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p morvit_deploy
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python ../../benchmarks/*.py ../../examples/*.py

unit: $(READY)
	$(BIN)/pytest --numprocesses auto --dist loadfile

train: $(READY)
	$(BIN)/python examples/train_digits.py --routing expert_choice --out build/digits-expert
	$(BIN)/python examples/train_digits.py --routing token_choice --out build/digits-token

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; name one with make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt "$(TORCH)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,train,rtx,coreml]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
