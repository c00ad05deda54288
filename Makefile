# Needs make and Python 3.11 or newer. Everything else is fetched from the package registry into .venv and .cache.
# Every version is pinned in constraints.txt; the second run of any target fetches nothing.

PYTHON ?= $(shell command -v python3.11 || command -v python3)

BIN := .venv/bin
CORE := .cache/core
DJANGO6 := .cache/django6
PINS := pyproject.toml constraints.txt
SOURCES := $(shell find authz_middleware integrations -type f -not -name '*.pyc') pyproject.toml README.md LICENSE

# Dependency groups need pip 25.1.
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# What the core must do by itself: run against the wheel, where no framework, client or server is installed.
CORE_TESTS := $(wildcard tests/core tests/identity tests/policy tests/record tests/remote tests/settings)
# What takes its time on sockets does not depend on how the package was installed: it runs once, with everything else.
ELSEWHERE := transport_faults transport_safety kept_connections client_tls credentials_rotation fallback_under_faults
CORE_IGNORED := $(ELSEWHERE:%=--ignore=tests/remote/test_%.py)
# What depends on the version of Django.
DJANGO_TESTS := $(wildcard tests/django tests/frameworks)

.DEFAULT_GOAL := help
.PHONY: help test check lint types unit wheel-test django6-test demo bench format clean
.DELETE_ON_ERROR:

help: ## show this list
	@grep -E '^[a-z.][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z.0-9-]+):.*## /  make \1|/' | column -t -s '|'

test: lint types wheel-test django6-test unit ## everything that has to hold before a change goes in

check: lint types ## what needs no test to run

lint: .venv/.ready ## style and suspicious code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.ready ## both type checkers, strict
	$(BIN)/mypy
	$(BIN)/pyright

unit: .venv/.ready ## the tests, with the branches they do not reach
	$(BIN)/pytest --cov --cov-config=pyproject.toml --cov-report=term-missing:skip-covered

wheel-test: $(CORE)/.installed ## the core's tests on the built wheel, without any framework
	$(CORE)/bin/python -P .ci/import_core.py
	rm -rf .cache/core-tests && mkdir -p .cache/core-tests
	cp -R tests pyproject.toml .cache/core-tests/
	cd .cache/core-tests && ../core/bin/python -P -m pytest -q $(CORE_TESTS) $(CORE_IGNORED)

django6-test: dist/.built ## the adapters' tests on Django 6, where a Python for it is installed
	@python=$$(.ci/newer-python); \
	if [ -z "$$python" ]; then \
	  echo "SKIPPED: tests on Django 6 (they need Python 3.12 or newer, and none was found)"; \
	elif [ -z "$(DJANGO_TESTS)" ]; then \
	  echo "SKIPPED: tests on Django 6 (there are none)"; \
	else \
	  $(MAKE) --no-print-directory $(DJANGO6)/.installed NEWER_PYTHON="$$python" && \
	  rm -rf .cache/django6-tests && mkdir -p .cache/django6-tests && \
	  cp -R tests example_apps pyproject.toml README.md docs .cache/django6-tests/ && \
	  cd .cache/django6-tests && ../django6/bin/python -P -m pytest -q $(DJANGO_TESTS); \
	fi

demo: .venv/.ready ## four applications and a decision point, as real processes, and what they decide
	@$(BIN)/python -m example_apps.demo

bench: .venv/.ready ## the cost of a decision, as ratios measured in one run
	@$(BIN)/python -m benchmarks

format: .venv/.ready ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove everything that these targets made
	rm -rf .venv .cache dist build .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv: .venv/.ready ## the environment of all other targets

.venv/.ready: $(PINS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python $(PIP_INSTALL) --group dev --editable .
	@touch $@

dist/.built: .venv/.ready $(SOURCES)
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist . > /dev/null
	@touch $@

$(CORE)/.ready: $(PINS)
	rm -rf $(CORE) && $(PYTHON) -m venv $(CORE)
	$(CORE)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(CORE)/bin/python $(PIP_INSTALL) --group core-test
	@touch $@

$(CORE)/.installed: $(CORE)/.ready dist/.built
	$(CORE)/bin/python -m pip uninstall --quiet --yes authz-middleware
	$(CORE)/bin/python $(PIP_INSTALL) "authz-middleware @ file://$(CURDIR)/$$(ls dist/*.whl)"
	@touch $@

$(DJANGO6)/.ready: $(PINS)
	rm -rf $(DJANGO6) && $(NEWER_PYTHON) -m venv $(DJANGO6)
	$(DJANGO6)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@touch $@

$(DJANGO6)/.installed: $(DJANGO6)/.ready dist/.built
	$(DJANGO6)/bin/python -m pip uninstall --quiet --yes authz-middleware
	$(DJANGO6)/bin/python $(PIP_INSTALL) --group test "authz-middleware @ file://$(CURDIR)/$$(ls dist/*.whl)"
	@touch $@
