# JointIQ-Net: the commands of the project. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
LOG := $(VENV)/install.log

# Set PYTHON=/path/to/python3.11 to choose the interpreter for .venv.
PYTHON ?=
CANDIDATES := $(PYTHON) $(if $(PYTHON),,python3.11 python3.12 python3 python)
# A name on the PATH is no proof: the interpreter must run, be a supported version and be able to make a venv.
USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
REUSABLE := import pip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))

PYTEST_ARGS ?=
COUNT ?= 10000
WHAT ?= bitstreams
SEED ?= 1
RESULTS ?=
ANCHORS ?=
METHOD ?=
REPORT_IMAGES ?=
NAME ?=
SCALE ?= pilot
ARGS ?=

# A mistyped name (RESULT=DIR) would else change nothing, without a word.
NAMES := PYTHON PYTEST_ARGS COUNT WHAT SEED RESULTS ANCHORS METHOD REPORT_IMAGES NAME SCALE ARGS
$(foreach one,$(filter-out $(NAMES) VENV,$(.VARIABLES)),$(if $(filter command,$(firstword $(origin $(one)))),\
	$(error $(one): no such variable; allowed: $(NAMES))))

# One thread per test process: xdist already keeps every core busy, and sums stay the same on every machine size.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 WANDB_MODE=disabled \
	$(PY) -m pytest -n logical --maxprocesses 4 --dist worksteal

.PHONY: help
help: ## list the targets
	@echo "usage: make TARGET [NAME=VALUE ...]"
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' \
		| awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'

.PHONY: install
install: $(INSTALLED) ## make .venv with the pinned packages (skipped when done)
	@echo "ready; to use it in this shell: . $(VENV)/bin/activate"

# The stamp comes last, so an interrupted install is taken up again; a changed pin or range installs again.
$(INSTALLED): pyproject.toml constraints.txt
	@python=; \
	for candidate in $(CANDIDATES); do \
		if $$candidate -c '$(USABLE)' >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if $(PY) -c '$(REUSABLE)' >/dev/null 2>&1; then \
		echo "install: updating $(VENV)"; \
	elif [ -n "$$python" ]; then \
		echo "install: creating $(VENV) with $$($$python --version 2>&1)"; \
		$$python -m venv --clear $(VENV); \
	else \
		echo "error: no working Python 3.11 or 3.12 with the venv module (tried: $(strip $(CANDIDATES)));" \
			"install one, or name it: make install PYTHON=/path/to/python3.11" >&2; \
		exit 2; \
	fi
	@echo "install: fetching the packages of constraints.txt, about 6 GB with PyTorch's CUDA libraries; some minutes"
	@$(PY) -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev]' \
		2>$(LOG).err | tee $(LOG) | awk ' \
		/^ *(Collecting|Processing|Obtaining)/ { if (++n % 25 == 0) { print "install:   " n " packages found"; fflush() } } \
		/^Installing collected/ { print "install:   unpacking " n " packages"; fflush() }' \
	|| { echo "error: pip failed (all it said: $(LOG), $(LOG).err):" >&2; \
		{ grep -E '^ *(ERROR|error)' $(LOG).err || cat $(LOG).err; } | tail -n 5 >&2; exit 2; }
	@touch $@
	@echo "install: done"

.PHONY: demo
demo: $(INSTALLED) ## train a small JointIQ-Net, code held-out photographs to files, compare with JPEG and JPEG 2000
	@$(PY) -m src.demo

.PHONY: test
test: lint ## lint, types and the quick tests (PYTEST_ARGS="-k grdn")
	@$(PYTEST) -q $(PYTEST_ARGS)

.PHONY: test-all
test-all: lint ## the same and the slow tests
	@$(PYTEST) -q -m "slow or not slow" $(PYTEST_ARGS)

.PHONY: lint
lint: $(INSTALLED) ## ruff and mypy, without changing a file
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

.PHONY: format
format: $(INSTALLED) ## let ruff format the code and fix what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

.PHONY: bench
bench: $(INSTALLED) ## time the codec beside models of CompressAI -> results/bench/codec.json
	@$(PY) -m tools.bench

.PHONY: bench-train
bench-train: $(INSTALLED) ## time a training step beside CompressAI's mbt2018 -> results/bench/train.json
	@$(PY) -m tools.bench.train --data-steps 20

.PHONY: fuzz
fuzz: $(INSTALLED) ## read COUNT=10000 odd files (SEED=1, WHAT=bitstreams, pictures, models or results)
	@$(PY) -m tools.fuzz --what $(WHAT) --count $(COUNT) --seed $(SEED)

.PHONY: bdrate
bdrate: $(INSTALLED) ## BD-rate tables, also the paper's Table 2: [RESULTS=DIR] [ANCHORS=DIR] [METHOD=pchip]
	@$(PY) -m src.bdrate $(if $(RESULTS),--results $(RESULTS)) $(if $(ANCHORS),--anchors $(ANCHORS)) \
		$(if $(METHOD),--method $(METHOD))

.PHONY: report
report: $(INSTALLED) ## one HTML page of results: [RESULTS=DIR] [ANCHORS=DIR] [METHOD=pchip] [REPORT_IMAGES=DIR]
	@$(PY) -m src.report $(if $(RESULTS),$(RESULTS),results) $(if $(ANCHORS),--anchors $(ANCHORS)) \
		$(if $(METHOD),--method $(METHOD)) $(if $(REPORT_IMAGES),--images $(REPORT_IMAGES))

.PHONY: study
study: $(INSTALLED) ## a table or figure of the papers again: NAME=table2 [SCALE=pilot] [ARGS="--train DIR --val DIR"]
	@$(PY) -m src.study $(NAME) $(if $(NAME),--scale $(SCALE) $(ARGS))

.PHONY: clean
clean: ## remove caches and build files
	@rm -rf build dist ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

.PHONY: clean-all
clean-all: clean ## remove .venv as well (results/ stays)
	@rm -rf $(VENV)
