# make demo    a page of pictures about the built-in network
# make test    the tests
# make lint    ruff, mypy and the direction of imports
# make bench   the benchmarks, against other libraries
# make docs    the documentation, into site/
# make clean   removes what these made, .venv too
#
# Each makes .venv when it has to; PYTHON=python3.12 chooses what from.

PYTHON ?= python3
WORKERS ?= 2
DEMO ?= demo.html

BIN = .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

help:
	@sed -n 's/^# make/make/p' Makefile

demo: .venv/dev.stamp
	@echo "convscope demo: drawing every technique"
	@$(BIN)/convscope demo -o "$(DEMO)"
	@echo "convscope demo: open $(DEMO) in a browser"

test: .venv/dev.stamp
	@echo "pytest, $(WORKERS) at a time"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(TESTS)

lint: .venv/dev.stamp
	@echo "ruff check"
	@$(BIN)/ruff check .
	@echo "ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "mypy"
	@$(BIN)/mypy
	@echo "lint-imports"
	@$(BIN)/lint-imports

bench: .venv/bench.stamp
	@for script in benchmarks/[!_]*.py; do \
		test -e "$$script" || { echo "no benchmarks yet"; break; }; \
		echo "$$script"; $(BIN)/python "$$script" || exit 1; \
	done

docs: .venv/docs.stamp
	@echo "mkdocs build --strict"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open site/index.html in a browser"

clean:
	rm -rf .venv site dist demo.html .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.venv/dev.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "convscope needs Python 3.10 to 3.13; name one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "installing convscope and its tools into .venv: a minute or two, once"
	@$(PYTHON) -m venv .venv
	@$(INSTALL) --editable '.[dev]'
	@touch $@

.venv/bench.stamp: .venv/dev.stamp
	@echo "installing the libraries that the benchmarks compare with"
	@$(INSTALL) --editable '.[bench]'
	@touch $@

.venv/docs.stamp: .venv/dev.stamp
	@echo "installing what builds the documentation"
	@$(INSTALL) --editable '.[docs]'
	@touch $@

.PHONY: help demo test lint bench docs clean
