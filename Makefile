# Everything builds on one virtual environment in .venv; every goal installs what is missing.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Compiled modules are kept: without them every worker and every command compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

# Lint and tests run side by side: the type checker takes one core for a minute.
.PHONY: install demo check quick test suite lint docs bench soak clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[train,cluster,export,text,dev]"
	touch $@

demo: install
	$(BIN)/dirtune ingest digits
	$(BIN)/dirtune sweep quickstart
	$(BIN)/dirtune plot quickstart
	$(BIN)/dirtune table quickstart
	@echo
	$(BIN)/dirtune table quickstart --answer
	@echo "Figure: figures/quickstart-regions.png. Parquet: results/quickstart/results."
	@echo "Next, your own table: $(BIN)/dirtune recommend my.csv --label COLUMN --minutes 20"

# While working: everything that needs no Ray and takes about a second at most, without the shape checks at each call.
check: install
	$(MAKE) --no-print-directory --jobs lint quick

quick: install
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not ray and not slow and not gpu and not soak" --jaxtyping-packages=

test: install
	$(MAKE) --no-print-directory --jobs lint suite

suite: install
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Too long for `make test`.
soak: install
	$(BIN)/pytest -m soak --timeout 3600

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy

# The documentation as a site, in build/site; a broken link is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: install
	$(BIN)/python benchmarks/sweep_overhead.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
