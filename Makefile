# Two commands do everything: `make demo` and `make test`. Each makes its own .venv.
PYTHON ?= python3.11
BIN := .venv/bin
TEST_THREADS := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.PHONY: demo test lint

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/ready
	$(BIN)/priorscope demo --out demo

test: .venv/ready
	$(TEST_THREADS) $(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
