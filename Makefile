# Each target makes its own virtual environment from a clean checkout; nothing else is needed first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
export PYTHONWARNINGS =
# Compiled once, not by each process of `make test` and each that a test starts.
export PYTHONDONTWRITEBYTECODE =

ifeq ($(UV),)
PIP := $(BIN)/python -m pip --disable-pip-version-check
MAKE_VENV = $(PYTHON) -m venv $(VENV) && $(PIP) install -q --upgrade "pip>=25.1"
else
PIP := $(UV) pip --python $(BIN)/python
MAKE_VENV = $(UV) venv -q --python $(PYTHON) $(VENV)
endif

SOURCES := pyproject.toml $(shell find src -name '*.py' -o -name '*.csv' -o -name '*.lua')

.PHONY: demo test test-dev test-events coverage test-all test-lowest .lowest test-sdks test-sdk lint bench pictures failover soak fuzz mutation clean

$(BIN)/python:
	$(MAKE_VENV)

# What is run and tested is the built wheel, not the source tree.
$(VENV)/.demo: $(BIN)/python $(SOURCES)
	$(PIP) install -q ".[demo]"
	$(PIP) install -q --no-deps --force-reinstall .
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) install -q --group test
	@sh tests/support/chromium.sh
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) install -q --group lint
	@touch $@

$(VENV)/.mutation: $(VENV)/.test
	$(PIP) install -q --group mutation
	@touch $@

demo: $(VENV)/.demo  ## a scripted bad minute with the real SDK, and a page about it: resilience-demo.html
	$(BIN)/resilience demo --fast

# What goes by real time is mostly waiting: two parts, the last of which is shown while it runs.
# What takes no notice of load runs beside them, in development mode; but without its checks of
# memory, as there is no C in here.
TIMED := $(BIN)/python $(MEASURE) -m pytest -m "real and not steady"
WAITS := tests/sdks tests/policies tests/testing tests/failover
SECOND := tests/runtimes tests/circuit tests/docs tests/explaining
STEADY := -m "steady or not real"
BESIDE := env PYTHONMALLOC=pymalloc nice -n 4 $(BIN)/python -X dev $(MEASURE) -m pytest $(STEADY)

test: $(VENV)/.test  ## the whole suite
	@parts=; n=0; trap 'kill $$parts' INT TERM; \
	part() { n=$$((n + 1)); "$$@" > $(VENV)/part.$$n.txt 2>&1 & parts="$$parts $$!"; }; \
	part $(BESIDE) tests/sdks; \
	part $(BESIDE) $(SECOND); \
	part $(BESIDE) --ignore=tests/sdks $(SECOND:%=--ignore=%); \
	part $(TIMED) $(WAITS); \
	$(TIMED) $(WAITS:%=--ignore=%); failed=$$?; \
	for part in $$parts; do wait $$part || failed=1; done; \
	cat $(VENV)/part*.txt; exit $$failed

test-dev: $(VENV)/.test  ## all of it in one process, in Python's development mode
	$(BIN)/python -X dev -m pytest

# LiteLLM's errors are read in an environment of LiteLLM's own, and measured there.
test-events: $(VENV)/.test  ## all of it while everything is listened to: is each call's course in order?
	PYTHONPATH=tests $(BIN)/python -m pytest -p support.telling $(STEADY)

coverage: $(VENV)/.test  ## lines and branches that the suite runs; less than all of them is an error
	$(BIN)/python -m coverage erase
	@$(MAKE) --no-print-directory test MEASURE="-m coverage run"
	@$(MAKE) --no-print-directory test-sdk SDK=litellm VENV=.venvs/litellm MEASURE="-m coverage run"
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report

# Every Python of these that is found, each from the built wheel in an environment of its own.
PYTHONS ?= 3.10 3.11 3.12 3.13
FIND = python=; for each in python$$version $$HOME/.pyenv/versions/$$version.*/bin/python; do \
	    if "$$each" -c "" 2>/dev/null; then python="$$each"; fi; \
	  done

test-all:  ## the suite on Python 3.10 to 3.13, as far as they are installed
	@for version in $(PYTHONS); do \
	  $(FIND); \
	  if [ -z "$$python" ]; then echo "python$$version: not found"; continue; fi; \
	  echo "python$$version: $$python"; \
	  $(MAKE) --no-print-directory test PYTHON="$$python" VENV=.venvs/$$version || exit 1; \
	done

# The oldest releases that pyproject.toml allows.
LOWEST := $(shell sed -n 's/^dependencies = //p' pyproject.toml | grep -o '[a-z]*>=[0-9.]*' | sed 's/>=/==/')

test-lowest:  ## the suite on the oldest Python, with the oldest dependencies
	@version=$(firstword $(PYTHONS)); $(FIND); \
	$(MAKE) --no-print-directory .venvs/lowest/.test PYTHON="$${python:-$(PYTHON)}" VENV=.venvs/lowest
	@$(MAKE) --no-print-directory .lowest VENV=.venvs/lowest

.lowest:
	$(PIP) install -q $(LOWEST)
	$(BIN)/python -m pytest

# The sets of SDKs that do not go with the others: the groups of pyproject.toml named sdks-*. Each is
# tested by the table of every SDK that it brings, and by the tests of the one it is named after.
ELSEWHERE := $(shell sed -n 's/^sdks-\([a-z0-9-]*\) *=.*/\1/p' pyproject.toml)

test-sdks: $(VENV)/.test  ## every SDK's errors, those included that need an environment of their own
	$(BIN)/python -m pytest -o python_files="test_providers.py test_sdk*.py"
	@for sdk in $(ELSEWHERE); do \
	  echo "$$sdk"; \
	  $(MAKE) --no-print-directory test-sdk SDK="$$sdk" VENV=".venvs/$$sdk" || exit 1; \
	done

test-sdk: $(VENV)/.sdk
	$(BIN)/python $(MEASURE) -m pytest -o python_files="\
	  test_providers.py test_sdk_misshapen.py test_sdk_parsing.py test_*_$(firstword $(subst -, ,$(SDK))).py"

$(VENV)/.sdk: $(BIN)/python $(SOURCES)
	$(PIP) install -q . --group pytest --group "sdks-$(SDK)"
	$(PIP) install -q --no-deps --force-reinstall .
	@touch $@

lint: $(VENV)/.lint  ## format, lint, types, those of the examples in the pages included
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --python-executable $(BIN)/python
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python docs/check_types.py

$(VENV)/.bench: $(VENV)/.test
	$(PIP) install -q --group bench
	@touch $@

bench: $(VENV)/.bench  ## cost in time and in calls, against by hand and other libraries; an outage
	$(BIN)/python benchmarks/cost.py --check --write
	$(BIN)/python benchmarks/shape.py --check
	$(BIN)/python benchmarks/breaker.py --check
	$(BIN)/python benchmarks/outage.py --check
	$(BIN)/python benchmarks/do_no_harm.py --check
	$(BIN)/python benchmarks/limits.py --check
	$(BIN)/python benchmarks/describe.py --check
	$(BIN)/python benchmarks/streams.py --check
	$(BIN)/python benchmarks/seeing.py --check

failover: $(VENV)/.test  ## sixteen faults of a provider, for the bare SDKs and under policies; 3 minutes
	$(BIN)/python tests/failover/exam.py

pictures: $(VENV)/.test  ## what docs/pictures has: the examples of the pages, and the demo's minute
	$(BIN)/python docs/pictures.py

soak: $(VENV)/.test  ## millions of calls; objects, threads and descriptors stay flat
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/limits.py --check --long

$(VENV)/.fuzz: $(VENV)/.demo
	$(PIP) install -q --group fuzz
	@touch $@

fuzz: $(VENV)/.fuzz  ## coverage-guided fuzzing of the header parsers; RUNS says how long
	$(BIN)/python benchmarks/fuzz_headers.py

# From the start. To go on with a run that was broken off: python docs/project/mutants.py
# All of them take many hours: SAMPLE= tries all.
SAMPLE ?= 800

mutation: $(VENV)/.mutation  ## breaks the code in many small ways; the tests must notice
	rm -rf mutants
	$(BIN)/python docs/project/mutants.py $(SAMPLE:%=--sample %)

clean:
	rm -rf mutants resilience-demo.html $(VENV) .venvs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
