# Everything needs only Python 3.11 or later, make and a C compiler; each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# How many tests run at a time; each takes up to 3 GB.
JOBS ?= 2
INSTALLED := $(VENV)/.installed

.PHONY: demo test check format browser clean

# The whole loop on a small fictional world; ARGS=--no-serve ends it after the table.
demo: $(INSTALLED)
	$(BIN)/veritune demo $(ARGS)

test: check browser
	$(BIN)/pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and alone: its CPU build must be in place before another package asks for any torch.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# The browser tests drive Chromium: one that is here, else Playwright's own, else the distribution's.
browser: $(INSTALLED)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
		|| $(BIN)/playwright install --with-deps chromium >/dev/null 2>&1 \
		|| (apt-get update -qq && apt-get install -y -qq chromium) >/dev/null 2>&1 \
		|| echo "no Chromium could be installed: the browser tests will be skipped"

clean:
	rm -rf $(VENV) demo-workspace .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
