# Everything runs in a virtual environment of the checkout's own; nothing needs to be active.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= pancluster-demo

# The window's tests need a screen; without one, a virtual screen of the size they are looked at.
SCREEN = $(if $(DISPLAY)$(WAYLAND_DISPLAY),,$(shell command -v xvfb-run >/dev/null && \
  echo env QT_QPA_PLATFORM=xcb xvfb-run -a -s \"-screen 0 1600x1000x24\"))

.PHONY: env demo test slow check bench bench-science clean

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml tools/make_env.sh
	PYTHON=$(PYTHON) VENV=$(VENV) bash tools/make_env.sh
	touch $@

demo: env
	$(BIN)/pancluster demo --out $(DEMO)

test: check
	$(SCREEN) $(BIN)/python -m pytest -m "not slow"

slow: env
	$(SCREEN) $(BIN)/python -m pytest -m slow

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate src/napari_pancluster/napari.yaml

bench-science: env
	$(BIN)/python benchmarks/bench_science.py

bench: env
	for bench in $(filter-out benchmarks/bench_science.py,$(wildcard benchmarks/bench_*.py)); do $(SCREEN) $(BIN)/python $$bench || exit 1; done

clean:
	rm -rf $(VENV) $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
