# make demo    train the demo end to end and answer questions about images (WORKDIR=runs/demo)
# make test    run the tests
# make lint    ruff, import-linter and mypy
# make clean   remove .venv and caches, keep runs/
# Each makes its own .venv and installs what it needs. PYTHON=/path/to/python3.11 names another interpreter.

VENV    := .venv
PYTHON  ?= python3.11 python3.12 python3.13 python3
WORKDIR ?= runs/demo
FITS    := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(VENV)/bin/python -m launch.recipe --config=demo --workdir=$(WORKDIR)

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path ./runs -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/.python:
	@if $(VENV)/bin/python -c '$(FITS)' 2>/dev/null; then \
	    echo "using $(VENV) as it is (make clean removes it)"; touch $@; exit; \
	fi; \
	for python in $(PYTHON); do \
	    $$python -c '$(FITS)' 2>/dev/null || continue; \
	    echo "making $(VENV) with $$python"; $$python -m venv --clear $(VENV) && touch $@; exit; \
	done; \
	echo "error: no Python 3.11, 3.12 or 3.13 (tried: $(PYTHON)); install one or say which: make PYTHON=/path/to/python3.11" >&2; \
	exit 1

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.python
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/.python
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[test,curate,experts,demo,serve]'
	@touch $@ $(VENV)/.demo
