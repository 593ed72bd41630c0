# Two commands on a fresh machine: `make sample` makes a first release, `make test` runs the tests.
# Everything is installed into .venv; nothing else is touched.

PYTHON ?= python3
VENV ?= .venv
PACKAGE ?= --editable .
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --constraint constraints.txt

.PHONY: sample test test-slow coverage lint types docs explorer clean
.DELETE_ON_ERROR:

sample: $(VENV)/.produce
	$(VENV)/bin/clay-publish sample my-first-release
	$(VENV)/bin/clay-publish run my-first-release/release.yaml

test: $(VENV)/.test $(VENV)/torchgeo
	$(VENV)/bin/pytest --numprocesses 2 --dist worksteal -m "not slow" $(PYTEST)

# Fuzzing, scale, long kill loops, and what repeats a check of `make test` on more data.
test-slow: $(VENV)/.test $(VENV)/torchgeo
	$(VENV)/bin/pytest --numprocesses 2 --dist worksteal -m slow $(PYTEST)

# Lines of the package that `make test` runs; fails below the floor in pyproject.toml.
coverage:
	$(MAKE) test PYTEST='--cov --cov-report=term:skip-covered --cov-report=xml:build/coverage.xml'

# The stages lie beside `clay_publish/` and are installed below it. Static tools see them where they are installed.
build/tree: $(wildcard clay_publish/*)
	rm -rf $@ && mkdir -p $@/clay_publish
	ln -s $(CURDIR)/clay_publish/* $@/clay_publish/
	ln -s $(addprefix $(CURDIR)/,producer catalog cards validate publish) $@/clay_publish/

types: $(VENV)/.test $(VENV)/.lint build/tree
	cd build/tree && $(abspath $(VENV))/bin/mypy --config-file $(CURDIR)/pyproject.toml --package clay_publish
	cd benchmarks && MYPYPATH=../build/tree:.:../tests/servers $(abspath $(VENV))/bin/mypy --config-file $(CURDIR)/pyproject.toml \
		--explicit-package-bases --follow-imports silent *.py quality/*.py

docs: $(VENV)/.test $(VENV)/.docs build/tree
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(VENV)/bin/mkdocs build --strict --quiet

lint: $(VENV)/.lint build/tree
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/codespell
	$(VENV)/bin/deptry .
	cd build/tree && PYTHONPATH=. $(abspath $(VENV))/bin/lint-imports $(CURDIR)/pyproject.toml

# The explorer's page, from its source to what is committed beside it. Needs Node and npm; nothing else does.
EXPLORER := cards/explorer
explorer: $(VENV)/.test build/tree
	cd $(EXPLORER)/page && npm ci --no-fund --no-audit && npm run check && npm run build
	cd build && PYTHONPATH=tree $(abspath $(VENV))/bin/python -m clay_publish.cards.explorer.land ../$(EXPLORER)/assets/land.bin

clean:
	rm -rf $(VENV) build dist my-first-release

$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	touch $@

# TorchGeo needs Python 3.12: elsewhere a test runs the one file of its wheel that reads embeddings.
$(VENV)/torchgeo: $(VENV)/.torch
	$(PIP) download --no-deps --python-version 3.12 --only-binary :all: --dest $@ torchgeo==0.10.1

$(VENV)/.%: pyproject.toml $(VENV)/.torch
	$(INSTALL) $(PACKAGE)'[$*]'
	touch $@
