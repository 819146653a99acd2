# `make demo` and `make test` need only Python (3.10 or newer), git and make: each makes its own environment.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
DEMO_READY := $(VENV)/.demo-ready
READY := $(VENV)/.ready
# some containers set it: each of hundreds of processes would compile torch's and coremltools' sources again
unexport PYTHONDONTWRITEBYTECODE
# --no-compile saves about 165 MiB: Python then writes .pyc files of the modules that it imports, and of no others
INSTALL := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt

.PHONY: help demo test lint types unit package fuzz mutants runtimes arm bench-table2 train clean

help:
	@echo "make demo    install what it needs, then run every step on the trained examples (about two minutes)"
	@echo "make test    install the rest, then run ruff, mypy and pytest, and try the wheel and the sdist"
	@echo "make package build the wheel and the sdist, and try both in environments of their own"
	@echo "make fuzz    try 10,000 mutated inputs of every kind; FUZZ=\"--seconds 60\" ends it sooner, --help lists the options"
	@echo "make mutants change 240 conditions and numbers one by one, and count how many changes the quick tests notice"
	@echo "make runtimes run the bundles in eleven runtimes and write docs/runtimes.md; RUNTIMES=\"--help\" lists the options"
	@echo "make arm     run bundles and the agent on emulated Arm processors: correctness, no speed (needs qemu-user-static, mmdebstrap)"
	@echo "make bench-table2 measure morvit_b16 beside the models of the paper's Table 2; TABLE2=\"--threads 2\" passes options"
	@echo "make train   train the two digits models and the two scenes models again (about 80 minutes on two cores)"
	@echo "make clean   remove the environment and everything built"

demo: $(DEMO_READY)
	$(BIN)/morvit-deploy demo -o build/demo --force

test: lint types unit package

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy --strict on the built package, then on the scripts: docs/decisions.md says why not on the editable install
types: $(READY)
	rm -rf build/types build/lib  # setuptools would package what was removed since
	$(BIN)/pip install --quiet --no-deps --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p morvit_deploy
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python ../../benchmarks/*.py ../../examples/*.py ../../examples/web/*.py ../../examples/baselines/*.py

# the bundles also run in the oldest runtime, which has an environment of its own
unit: $(READY)
	$(BIN)/python tests/runtimes/environments.py
	$(BIN)/pytest --numprocesses auto --dist loadfile

package: $(READY)
	.ci/try-package $(BIN)

fuzz: $(READY)
	PYTHONPATH=tests/helpers $(BIN)/python tests/fuzz/run.py $(FUZZ)

mutants: $(READY)
	$(BIN)/python tests/mutants/mutants.py $(MUTANTS)

runtimes: $(READY)
	$(BIN)/python tests/runtimes/matrix.py $(RUNTIMES)

arm: $(READY)
	tests/arm/make-userland build/arm $(BIN)/python
	PYTHONPATH=tests/helpers:tests/arm $(BIN)/python tests/arm/emulated.py $(ARM)

# random weights, which take the time of trained ones; exported models are kept in build/table2
bench-table2: $(READY)
	test -d build/table2/checkpoint || $(BIN)/morvit-deploy init --preset morvit_b16 -o build/table2/checkpoint
	test -d build/table2/bundles/morvit_b16 || $(BIN)/morvit-deploy export build/table2/checkpoint -o build/table2/bundles/morvit_b16
	test -d build/table2/bundles/morvit_b16-batches || $(BIN)/morvit-deploy export build/table2/checkpoint --batch dynamic \
		-o build/table2/bundles/morvit_b16-batches
	$(BIN)/morvit-deploy compare build/table2/bundles/morvit_b16 build/table2/bundles/morvit_b16-batches --baselines table2 --cache build/table2/models \
		-o build/table2/table2.json --report build/table2/table2.html --force $(TABLE2)

train: $(READY)
	$(BIN)/python examples/train_digits.py --routing expert_choice --out build/digits-expert
	$(BIN)/python examples/train_digits.py --routing token_choice --out build/digits-token
	$(BIN)/python examples/train_scenes.py --selection batch --out build/scenes-thresholds --state build/scenes-thresholds.state
	$(BIN)/python examples/train_scenes.py --selection image --out build/scenes-topk --state build/scenes-topk.state

$(DEMO_READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; name one with make PYTHON=…")'
	ln -sfn ../exporters ../calibration morvit_deploy/  # in git, but an sdist has no links
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "$(TORCH)"
	$(INSTALL) --editable ".[export]"
	touch $@

$(READY): $(DEMO_READY)
	$(INSTALL) --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
