# `make demo` and `make test` are all that a newcomer needs; both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test experiments check docs clean

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

# A photograph in the style of a picture that the project paints itself.
demo: $(VENV)/demo
	mkdir -p out
	$(BIN)/python experiments/demo/photo.py chelsea out/content.png
	$(BIN)/python experiments/demo/paint.py out/style.png --size 512
	$(BIN)/jaxstyle stylize out/content.png out/style.png -o out/demo.png \
	  --weights compact --size 320 --report out/demo.json
	@echo "The picture is out/demo.png; its numbers are in out/demo.json."

test: $(VENV)/test
	# Two processes: most of a test is one thread compiling.
	$(BIN)/python -m pytest -n 2 --dist worksteal

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
	rm -rf $(VENV) out dist
