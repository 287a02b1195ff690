# Everything runs in a virtual environment of the checkout's own; nothing needs to be active.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= pancluster-demo

.PHONY: env demo test slow check bench clean

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml tools/make_env.sh
	PYTHON=$(PYTHON) VENV=$(VENV) bash tools/make_env.sh
	touch $@

demo: env
	$(BIN)/pancluster demo --out $(DEMO)

test: check
	$(BIN)/python -m pytest -m "not slow"

slow: env
	$(BIN)/python -m pytest -m slow

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate src/napari_pancluster/napari.yaml

bench: env
	for bench in benchmarks/bench_*.py; do $(BIN)/python $$bench || exit 1; done

clean:
	rm -rf $(VENV) $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
