# make demo         install, run the default study, say where to look
# make test         the tests that CI runs
# make test-fast    those that need no worker, command, server, Ray, kill or browser
# VERSIONS=lowest   the oldest versions that pyproject.toml allows, VERSIONS=latest the newest, in environments of their
#                   own; both install PyTorch with CUDA (GB) unless UV_OVERRIDE or PIP_CONSTRAINT name a file that pins it
VERSIONS := locked
VENV   := .venv$(patsubst %,-%,$(filter-out locked,$(VERSIONS)))
PYTHON := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

# uv does not read pip's settings.
FIND_LINKS := UV_FIND_LINKS="$$($(PYTHON) -m pip config get global.find-links 2>/dev/null || true)"

.PHONY: install demo test test-fast coverage test-slow test-wheel chaos bench bench-scale lint types format graph screenshot

install: $(STAMP)

$(STAMP): pyproject.toml requirements/lock.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(INSTALL_$(VERSIONS))
	touch $@

INSTALL_locked = $(PYTHON) -m pip install --quiet -c requirements/lock.txt -e '.[dev]'
INSTALL_latest = $(PYTHON) -m pip install --quiet -e '.[dev]'
INSTALL_lowest = $(PYTHON) -m pip install --quiet uv && \
	$(FIND_LINKS) $(PYTHON) -m uv pip install --quiet --python $(PYTHON) --resolution lowest-direct -e '.[dev]'

demo: install
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/mlflow run . --env-manager local
	@echo
	@echo "Every trial is a nested run now. Look at them:"
	@echo "    $(VENV)/bin/mlflow ui        then open http://127.0.0.1:5000"

PYTEST := $(PYTHON) $(MEASURED) -m pytest -p tests.costs --durations 30
FAST   := not slow and not chaos and not alone and not processes
# Old versions warn of the newer ones that they need in turn, and of nothing that mltune does.
WARN_lowest := -W default::DeprecationWarning

# First what can run beside anything, then what waits for processes to get their turn; of the second part, tests that use
# Ray run together (tests/conftest.py). Both parts run, whatever fails.
test: install
	$(PYTEST) -m "not slow and not chaos and not alone" -n 3 --dist loadfile --no-loadscope-reorder; side_by_side=$$?; \
	$(PYTEST) -m "not slow and not chaos and alone" -n 3 --dist loadgroup --no-loadscope-reorder; exit $$(( side_by_side + $$? ))

test-fast: install
	$(PYTHON) -m pytest -m "$(FAST)" -n 2 --dist worksteal $(WARN_$(VERSIONS))

# How much of mltune/ those tests run, in whatever process; fails if it is under 95 % of the branches.
coverage: export PYTHONPATH := $(CURDIR)
coverage: export __RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR := tests.covered.save_often
coverage: install
	$(PYTHON) -m coverage erase
	$(MAKE) test MEASURED="-m coverage run"; tests=$$?; \
	$(PYTHON) -m coverage combine --quiet; \
	$(PYTHON) -m coverage json --quiet -o - | $(PYTHON) -m tests.covered; exit $$(( tests + $$? ))

# Minutes long: a fresh environment for `mlflow run`, every scikit-learn estimator, real training of whole grids.
test-slow: install
	$(FIND_LINKS) $(PYTHON) -m pytest -m slow --timeout 1800

# The wheel, built from what is committed, in an empty environment: without extras it runs the README's ten lines.
test-wheel: install
	$(PYTHON) -m pytest tests/test_wheel.py -m slow

# Kills hundreds of drivers and workers at seeded random moments; SEED=7 for other ones.
chaos: install
	$(PYTHON) -m pytest -m chaos --timeout 3600

# mltune beside what people use without it: benchmarks/results.md, benchmarks/results-scale.md (35 and 15 minutes).
bench: install
	$(PYTHON) -m benchmarks

bench-scale: install
	$(PYTHON) -m benchmarks --scale

lint: types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# The projects one by one: the modules of each have the names of the others'.
types: install
	$(VENV)/bin/mypy
	for project in projects/*/; do $(VENV)/bin/mypy $$project || exit 1; done

format: install
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The import graph in CONTRIBUTING.md.
graph: install
	$(PYTHON) -m tests.import_graph

screenshot: install
	MLTUNE_PICTURES=docs/images $(PYTHON) -m pytest tests/test_browser.py
