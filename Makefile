# make demo         install, run the default study, say where to look
# make test         the tests that CI runs
# make test-fast    those that need no worker, command, server, Ray, kill or browser
VENV   := .venv
PYTHON := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

.PHONY: install demo test test-fast coverage test-slow chaos bench bench-scale lint types format screenshot

install: $(STAMP)

$(STAMP): pyproject.toml requirements/lock.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet -c requirements/lock.txt torch==2.13.0
	$(PYTHON) -m pip install --quiet -c requirements/lock.txt -e '.[ray,torch,dev]'
	touch $@

demo: install
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/mlflow run . --env-manager local
	@echo
	@echo "Every trial is a nested run now. Look at them:"
	@echo "    $(VENV)/bin/mlflow ui        then open http://127.0.0.1:5000"

PYTEST := $(PYTHON) $(MEASURED) -m pytest -p tests.costs --durations 30
FAST   := not slow and not chaos and not alone and not processes

# First what can run side by side, then, one at a time, what must not compete for its turn. Both run, whatever fails.
test: install
	$(PYTEST) -m "not slow and not chaos and not alone" -n 3 --dist loadfile --no-loadscope-reorder; side_by_side=$$?; \
	$(PYTEST) -m "not slow and not chaos and alone"; exit $$(( side_by_side + $$? ))

test-fast: install
	$(PYTHON) -m pytest -m "$(FAST)" -n 2 --dist worksteal

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
	UV_FIND_LINKS="$$($(PYTHON) -m pip config get global.find-links 2>/dev/null || true)" $(PYTHON) -m pytest -m slow --timeout 1800

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

screenshot: install
	MLTUNE_PICTURES=docs/images $(PYTHON) -m pytest tests/test_browser.py
