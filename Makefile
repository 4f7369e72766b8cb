# Needs git, Python 3.11 or newer with pip, and make. Everything is installed into .venv from the hash-pinned lock, as
# wheels: a source distribution would run code of build requirements that no lock has.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SCENARIO ?= istio-policies
ARGS ?=

.PHONY: help bench full test lint unit local browser cluster soak wheel sbom figures clean lock

help: ## Show what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

bench: $(VENV)/run.stamp ## The main job with short windows: about four minutes, ends with a report
	$(BIN)/meshbench run --scenario $(SCENARIO) --quick $(ARGS)

full: $(VENV)/run.stamp ## The main job with the study's windows: about 25 minutes
	$(BIN)/meshbench run --scenario $(SCENARIO) $(ARGS)

test: $(VENV)/dev.stamp lint unit local browser cluster ## All checks and tests

lint: $(VENV)/dev.stamp ## Style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/dev.stamp ## Fast tests that touch nothing outside
	$(BIN)/pytest tests/unit -n 2 --dist worksteal

local: $(VENV)/dev.stamp ## Real processes and real Envoys on this machine
	$(BIN)/pytest tests/local -m "not soak and not measures" -n 3 --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest tests/local -m "not soak and measures"

browser: $(VENV)/dev.stamp ## The report in a real browser
	$(BIN)/pytest tests/browser -n 2

cluster: $(VENV)/dev.stamp ## A real Kubernetes; skipped where the lab for it is missing
	$(BIN)/pytest tests/cluster

soak: $(VENV)/dev.stamp ## What is slow and rare: PART=kills, ...; without PART the list of parts
	$(BIN)/python -m tests.soak $(PART)

wheel: $(VENV)/dev.stamp ## Build the wheel into dist/
	$(BIN)/pyproject-build --wheel --no-isolation

sbom: $(VENV)/dev.stamp ## Write what the locks install as CycloneDX into dist/
	$(BIN)/python -m tests.sbom dist

figures: $(VENV)/dev.stamp ## Print the figures that say how well meshbench itself does
	$(BIN)/python -m tests.benchmarks

clean: ## Remove the environment and what was built
	rm -rf $(VENV) dist

lock: ## Renew the locks (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -q pyproject.toml --group install -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -q pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -q --group bookinfo -c requirements.lock -o requirements-bookinfo.lock

# The environment is made without its own pip, and filled by the one that is there: a Python without `ensurepip`
# (as Debian ships it) will do, and so will one that guards its own packages.
$(VENV)/run.stamp: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python install -q --disable-pip-version-check --only-binary :all: --require-hashes -r requirements.lock
	$(PYTHON) -m pip --python $(BIN)/python install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/dev.stamp: requirements-dev.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python install -q --disable-pip-version-check --only-binary :all: --require-hashes -r requirements-dev.lock
	$(PYTHON) -m pip --python $(BIN)/python install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
	touch $(VENV)/run.stamp
