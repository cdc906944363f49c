# Two commands do everything: `make demo` runs the main job, `make test` runs the checks and tests.
# Both make .venv and install into it once; needed is only Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BROWSER := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
WITHOUT_BROWSER := $(if $(BROWSER),,-m "not browser")

.PHONY: setup demo test docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $(READY)

demo: $(READY)
	$(BIN)/tomotif demo --output demo

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src
	$(BIN)/lint-imports
	@$(if $(BROWSER),true,echo "no Chromium found: the tests marked 'browser' are deselected (install the package chromium)")
	$(BIN)/python -m pytest $(WITHOUT_BROWSER)

docs: $(READY)
	$(BIN)/python -m benchmarks.page

clean:
	rm -rf $(VENV) build src/*.egg-info
