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

.PHONY: help demo test test-slow test-gpu test-deploy fuzz removed-checks lint bench bench-full docs package clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: $(VENV)/.demo ## train on digits: private, masked, with dropouts; writes runs/
	$(BIN)/python -m fl train --preset digits-demo

test: $(VENV)/.dev ## the whole suite except the slow tests, on every core
	$(BIN)/python -m pytest -n auto -m "not slow and not gpu and not deploy"
	$(BIN)/python -m pytest --doctest-modules --doctest-glob='*.md' README.md docs/datasets.md secureagg dp fl

test-slow: $(VENV)/.dev ## the tests marked slow
	$(BIN)/python -m pytest -n auto -m "slow and not deploy"

test-gpu: $(VENV)/.dev ## the tests that need an accelerator, and a jax that finds it
	JAX_PLATFORMS= $(BIN)/python -m pytest -m gpu tests

QUICK ?=
test-deploy: $(VENV)/.dev ## runs across organisations in Flower's real processes; QUICK=1 for a few minutes of it
	$(BIN)/python -m pytest -m "deploy$(if $(QUICK), and not slow)" tests/deploy

FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.fuzz ## secureagg's receive functions, coverage-guided, FUZZ_SECONDS=600 (Linux)
	@mkdir -p build/fuzz
	@echo 'An input that breaks a rule ends the run: build/fuzz/crash-*, to try again in place of the corpus.'
	$(BIN)/python -m tests.fuzz.fuzz_receive build/fuzz/corpus -max_total_time=$(FUZZ_SECONDS) -max_len=2048 -artifact_prefix=build/fuzz/

removed-checks: $(VENV)/.dev ## remove every refusal of secureagg and of fl.engines in turn; its tests fail
	$(BIN)/python -m tests.removed_checks

lint: $(VENV)/.dev ## format, lint rules and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# What is finished is not trained again, but for the digits of `bench`. Timings want a quiet machine.
bench: $(VENV)/.dev ## what privacy and masking cost, embedded data, minutes; benchmarks/report.html
	$(BIN)/python -m benchmarks.privacy_utility --again --sets digits --epsilons 1 4 --mechanisms none clipped gaussian skellam-12 skellam-16 discrete_gaussian-16 gaussian-cyclic banded
	$(BIN)/python -m benchmarks.dropout_privacy
	$(BIN)/python -m benchmarks.attack
	$(BIN)/python -m benchmarks.protocol_cost --rows n100-short n100 n100-drop n100-malicious n1024-16bit
	$(BIN)/python -m benchmarks.accounting
	$(BIN)/python -m benchmarks.samplers
	$(BIN)/python -m benchmarks.simulation_speed --rows gemm 2nn encode secure
	$(BIN)/python -m benchmarks.report

# The peers' environments are made by: .venv/bin/python -m benchmarks.peers.environments
# PEERS="fedjax pfl flower opacus dp-accounting opendp": each script takes those that do its work.
PEERS ?=
bench-full: $(VENV)/.dev ## the same on the data sets of DATA_DIR, hours; PEERS="opacus flower ..." beside
	@test -n "$(DATA_DIR)" || { echo 'bench-full needs DATA_DIR=..., the folder of the data sets'; exit 1; }
	$(BIN)/python -m benchmarks.privacy_utility --data-dir $(DATA_DIR) --sets digits mnist-writers mnist-writers-no-momentum fashion-mnist heart-disease shakespeare
	$(BIN)/python -m benchmarks.privacy_utility --data-dir $(DATA_DIR) --sets digits mnist-writers heart-disease --mechanisms skellam-16 --against outsider
	$(BIN)/python -m benchmarks.rounds_to_target --data-dir $(DATA_DIR) --rows 2nn-iid 2nn-shards cnn-iid
	$(BIN)/python -m benchmarks.correlated_noise
	$(BIN)/python -m benchmarks.dropout_privacy
	$(BIN)/python -m benchmarks.attack
	$(BIN)/python -m benchmarks.audit
	$(BIN)/python -m benchmarks.protocol_cost
	$(if $(filter flower,$(PEERS)),$(BIN)/python -m benchmarks.protocol_cost --peers flower)
	$(BIN)/python -m benchmarks.accounting --peers $(PEERS)
	$(BIN)/python -m benchmarks.samplers --peers $(PEERS)
	$(BIN)/python -m benchmarks.simulation_speed --peers $(PEERS)
	$(BIN)/python -m benchmarks.deployment
	$(BIN)/python -m benchmarks.report

docs: $(VENV)/.dev ## the documentation as a site, site/index.html; a dead link ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'site/index.html: open it, or serve it with $(BIN)/mkdocs serve'

package: $(VENV)/.dev ## wheel and source archive in dist/, tried in an empty environment
	rm -rf dist build/empty
	$(BIN)/python -m pytest tests/test_package.py tests/test_extras.py
	$(BIN)/python -m build --no-isolation
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt dist/*.whl
	build/empty/bin/python -I tests/installed.py

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

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[data,report,deploy,test,lint,docs,package]'
	touch $@
