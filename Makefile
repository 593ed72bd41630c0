# Two commands on a fresh machine: `make sample` makes a first release, `make test` runs the tests.
# Everything is installed into .venv; nothing else is touched.

PYTHON ?= python3
VENV ?= .venv
PACKAGE ?= --editable .
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --constraint constraints.txt

.PHONY: sample test test-slow lint types docs explorer clean
.DELETE_ON_ERROR:

sample: $(VENV)/.produce
	$(VENV)/bin/clay-publish sample my-first-release
	$(VENV)/bin/clay-publish run my-first-release/release.yaml

test: $(VENV)/.test
	$(VENV)/bin/pytest --numprocesses 2 --dist worksteal -m "not slow" $(PYTEST)

# Fuzzing, scale, long kill loops, and what repeats a check of `make test` on more data.
test-slow: $(VENV)/.test
	$(VENV)/bin/pytest --numprocesses 2 --dist worksteal -m slow $(PYTEST)

# The stages lie beside `clay_publish/` and are installed below it. Static tools see them where they are installed.
build/tree: $(wildcard clay_publish/*)
	rm -rf $@ && mkdir -p $@/clay_publish
	ln -s $(CURDIR)/clay_publish/* $@/clay_publish/
	ln -s $(addprefix $(CURDIR)/,producer catalog cards validate publish) $@/clay_publish/

types: $(VENV)/.test $(VENV)/.lint build/tree
	cd build/tree && $(abspath $(VENV))/bin/mypy --config-file $(CURDIR)/pyproject.toml --package clay_publish

docs: $(VENV)/.test $(VENV)/.docs build/tree
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

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

$(VENV)/.%: pyproject.toml $(VENV)/.torch
	$(INSTALL) $(PACKAGE)'[$*]'
	touch $@
