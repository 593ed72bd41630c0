# Two commands on a fresh machine: `make sample` makes a first release, `make test` runs the tests.
# Everything is installed into .venv; nothing else is touched.

PYTHON ?= python3
VENV ?= .venv
PACKAGE ?= --editable .
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --constraint constraints.txt

.PHONY: sample test lint clean
.DELETE_ON_ERROR:

sample: $(VENV)/.produce
	$(VENV)/bin/clay-publish sample my-first-release
	$(VENV)/bin/clay-publish run my-first-release/release.yaml

test: $(VENV)/.test
	$(VENV)/bin/pytest --numprocesses 2 --dist worksteal $(PYTEST)

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) build dist my-first-release

$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	touch $@

$(VENV)/.%: pyproject.toml $(VENV)/.torch
	$(INSTALL) $(PACKAGE)'[$*]'
	touch $@
