# One command each: `make train` trains the smoke experiment, `make test` runs the tests, `make test-slow` the long ones,
# `make check` the linters.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SPARK_STAMP := $(VENV)/.spark-installed

.PHONY: setup train test test-slurm test-spark test-gpu test-slow check clean

setup: $(STAMP)

# torch, fbgemm and torchrec must match, so pip sees all of them in one command.
$(STAMP): pyproject.toml tools/fbgemm_shim/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check torch==2.13.0 ./tools/fbgemm_shim torchrec==1.8.0 -e '.[dev]'
	touch $(STAMP)

train: $(STAMP)
	$(BIN)/shardrec train experiment=smoke

# Two files at a time: the longest tests wait for other processes most of their time.
test: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile -m 'not slow and not slurm and not spark and not gpu'

# Jobs of two nodes on a real Slurm, which it installs and starts: Debian, as root. Elsewhere they are skipped.
test-slurm: $(STAMP)
	tests/install_slurm.sh || true
	$(BIN)/pytest -m 'slurm and not slow' -rs

# `prepare` on a real Spark of this machine; skipped where there is no Java.
test-spark: $(SPARK_STAMP)
	$(BIN)/pytest -m 'spark and not slow' -rs

$(SPARK_STAMP): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[spark]'
	touch $(SPARK_STAMP)

# Kernels and training on one GPU against the CPU; needs torch, fbgemm-gpu and torchrec built for it (docs/gpus.md).
test-gpu:
	$(BIN)/pytest -m gpu -rs

# PART=1/3 runs every third of them.
PART ?= 1/1
test-slow: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile -m slow -rs --part=$(PART)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
