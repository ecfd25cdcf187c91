# `make demo` and `make test` are all that a newcomer needs; both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools
export PIP_DISABLE_PIP_VERSION_CHECK := 1

NUMERICAL := tests/losses tests/optim tests/nn

.PHONY: demo test strict experiments check docs locked lock lowest audit clean

$(VENV)/demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/docs: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[docs,notebook]'
	touch $@

# The test environment of CI, every version by its digest, for the Python that the lock is for.
$(VENV)/locked: pyproject.toml requirements-test.lock
	$(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
	  $(BIN)/pip install --quiet --require-hashes --requirement requirements-test.lock && \
	  $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .; \
	else \
	  echo "requirements-test.lock is for Python 3.11, this is another: today's versions instead"; \
	  $(BIN)/pip install --quiet --editable '.[test]'; \
	fi
	touch $@ $(VENV)/test

locked: $(VENV)/locked

$(TOOLS)/done: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet uv pip-audit
	touch $@

# After a change of pyproject's requirements; versions stay where they can.
lock: $(TOOLS)/done
	$(TOOLS)/bin/uv pip compile --quiet pyproject.toml --extra test --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate -o requirements-test.lock

# Known vulnerabilities of what the lock names; needs the network.
audit: $(TOOLS)/done
	.ci/audit $(TOOLS)/bin/pip-audit

# The suite, or TESTS of it, with the lowest versions that pyproject.toml allows.
LOWEST := .venv-lowest
TESTS ?= tests
lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python .ci/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet --constraint $(LOWEST)/constraints.txt --editable '.[test]'
	$(LOWEST)/bin/python -m pytest -n 2 --dist worksteal $(TESTS)

# A photograph in the style of an image that the project paints itself.
demo: $(VENV)/demo
	mkdir -p out
	$(BIN)/jaxstyle sample out/content.png out/style.png --overwrite
	$(BIN)/jaxstyle stylize out/content.png out/style.png -o out/demo.png \
	  --size 512 --report out/demo.json
	@echo "The image is out/demo.png; its numbers are in out/demo.json."

test: $(VENV)/test
	# Two processes: most of a test is one thread compiling.
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The numerical tests as users run JAX, with XLA's full optimization, and in its stricter modes.
strict: $(VENV)/test
	XLA_FLAGS= JAX_NUMPY_RANK_PROMOTION=raise JAX_DEFAULT_PRNG_IMPL=rbg \
	  $(BIN)/python -m pytest -n 2 --dist worksteal $(NUMERICAL)
	JAX_ENABLE_X64=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/optim tests/losses

# The article's claims at small size, into experiments/; goes on where it was stopped.
$(VENV)/experiments: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[experiments]'
	touch $@

experiments: $(VENV)/experiments
	$(BIN)/python experiments/run.py

check: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in out/site; a warning is an error.
docs: $(VENV)/docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(TOOLS) $(LOWEST) out dist
