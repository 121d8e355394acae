# Everything runs inside .venv, which the first target that needs it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# XLA and BLAS thread pools slow small models down and make timings noisy.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export JAX_PLATFORMS ?= cpu
export XLA_FLAGS ?= --xla_cpu_multi_thread_eigen=false

.PHONY: help demo test test-slow test-deploy fuzz removed-checks lint bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: $(VENV)/.demo ## train on digits: private, masked, with dropouts; writes runs/
	$(BIN)/python -m fl train --preset digits-demo

test: $(VENV)/.dev ## the whole suite except the slow tests, on every core
	$(BIN)/python -m pytest -n auto -m "not slow and not gpu and not deploy"
	$(BIN)/python -m pytest --doctest-modules --doctest-glob='*.md' README.md docs/datasets.md secureagg dp fl

test-slow: $(VENV)/.dev ## the tests marked slow
	$(BIN)/python -m pytest -n auto -m "slow and not deploy"

QUICK ?=
test-deploy: $(VENV)/.deploy ## runs across organisations in Flower's real processes; QUICK=1 for a few minutes of it
	$(BIN)/python -m pytest -m "deploy$(if $(QUICK), and not slow)" tests/deploy

FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.fuzz ## secureagg's receive functions, coverage-guided, FUZZ_SECONDS=600 (Linux)
	@mkdir -p build/fuzz
	@echo 'An input that breaks a rule ends the run: build/fuzz/crash-*, to try again in place of the corpus.'
	$(BIN)/python -m tests.fuzz.fuzz_receive build/fuzz/corpus -max_total_time=$(FUZZ_SECONDS) -max_len=2048 -artifact_prefix=build/fuzz/

removed-checks: $(VENV)/.dev ## remove every refusal of secureagg in turn; its tests fail
	$(BIN)/python -m tests.secureagg.removed_checks

lint: $(VENV)/.dev ## format, lint rules and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.dev ## seconds per round of Plain, Ideal and Secure
	$(BIN)/python -m benchmarks.aggregation

clean: ## remove the environment and caches, keep runs/
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The interpreter is checked first, so that a machine without a piece is told the one package
# to install instead of failing half way. A half-made environment is removed and made again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'Python 3.11 or newer is needed: install python3 (Debian, Ubuntu: apt-get install python3)'; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo 'The venv module is missing: install python3-venv (Debian, Ubuntu: apt-get install python3-venv)'; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[data,report]'
	touch $@

$(VENV)/.fuzz: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[fuzz]'
	touch $@

$(VENV)/.deploy: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[deploy,test]'
	touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[data,report,test,lint]'
	touch $@
