# Every target sets up what it needs by itself: MariaDB from the system's packages, and a
# virtual environment in .venv. Running one again is quick.

VENV ?= .venv
export VENV
PYTHON_IN_VENV = $(VENV)/bin/python

# The suite of the store, which runs in every mode; a short choice of it, by SQL, in `make test`.
MODES ?= sql mixed replication galera
STORE_TESTS = $(patsubst %,tests/server/test_%.py,store exchange counters batches scan cull \
	computed stateful lease lease_races rate_limits rate_limit_promises limits mapped_tables \
	concurrency bad_input hostile_input large_values threads forks)
SQL_TESTS = $(patsubst %,tests/server/test_%.py,concurrency exchange counters)

.PHONY: help setup demo demo-cluster example-worker example-web test test-python test-modes test-cluster test-browser \
	unit stress bench-setup bench bench-expiry bench-dogpile bench-limiter bench-staleness bench-modes \
	bench-growth bench-instructions fuzz fuzz-codec docs package pictures lint types format ci clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

setup: ## Install what is missing
	@tools/setup.sh

demo: setup ## Show the store at work on a MariaDB of its own
	@$(PYTHON_IN_VENV) -m examples.demo

demo-cluster: ## Show a store on replicas and on Galera while servers die; installs galera-4 too
	@tools/setup.sh galera-4 rsync
	@$(PYTHON_IN_VENV) -m examples.demo_cluster $(ARGS)

example-worker: setup ## Show workers with a queue while they are killed, on a MariaDB of its own
	@$(PYTHON_IN_VENV) -m examples.worker

example-web: setup ## Serve a page with a cache, sessions, a rate limit and a live counter
	@$(PYTHON_IN_VENV) -m examples.web

test: setup ## Run the unit and server tests, with coverage
	@rm -f .coverage .coverage.*
	$(PYTHON_IN_VENV) -m coverage run -m pytest -m "not stress and not cluster and not browser" -n 3 \
		--dist loadfile $(ARGS)
	$(PYTHON_IN_VENV) -m coverage run -m pytest --hskv-mode=sql -n 3 --dist loadfile $(SQL_TESTS)
	@$(PYTHON_IN_VENV) -m coverage combine --quiet
	@$(PYTHON_IN_VENV) tools/coverage.py

test-python: setup ## Run the unit tests and faults with the codec in pure Python
	HSKV_IMPL=python $(PYTHON_IN_VENV) -m pytest -m "not stress" -n 3 --dist loadfile tests/unit \
		tests/faults/test_proxy.py tests/faults/test_stream.py $(ARGS)

unit: setup ## Run the tests that need no server
	$(PYTHON_IN_VENV) -m pytest -m unit $(ARGS)

test-modes: setup ## Run the store's suite in other modes: MODES="sql mixed replication galera"
	@for mode in $(MODES); do $(PYTHON_IN_VENV) -m pytest --hskv-mode=$$mode -n 2 --dist loadfile \
		--timeout 120 $(STORE_TESTS) $(ARGS) || exit 1; done

test-cluster: ## Run the tests on replicas and on Galera; installs galera-4 too
	@tools/setup.sh galera-4 rsync
	@rm -f .coverage .coverage.*
	$(PYTHON_IN_VENV) -m coverage run -m pytest -m cluster $(ARGS)
	@$(PYTHON_IN_VENV) -m coverage combine --quiet
	@$(PYTHON_IN_VENV) tools/coverage.py cluster
	@$(MAKE) --no-print-directory test-modes

test-browser: ## Look at the web example in a real browser; installs chromium too
	@tools/setup.sh chromium chromium-driver
	$(PYTHON_IN_VENV) -m pytest -m browser $(ARGS)

stress: ## Run the long tests; installs stunnel, redis and mariadb-backup too
	@tools/setup.sh stunnel4 redis-server mariadb-backup
	$(PYTHON_IN_VENV) -m pytest -m stress $(ARGS)

bench-setup: ## Install redis and memcached too, to measure beside
	@tools/setup.sh redis-server memcached

bench: bench-setup ## Measure hskv beside raw loops, pymemcache, redis-py, SQL clients; then regions
	@$(PYTHON_IN_VENV) -m pip install --quiet --disable-pip-version-check -e '.[pictures]'
	@tools/mysqlclient.sh $(PYTHON_IN_VENV)
	@$(PYTHON_IN_VENV) -m benchmarks.bench $(ARGS)
	@$(PYTHON_IN_VENV) -m benchmarks.dogpile $(DOGPILE_ARGS)

bench-modes: setup ## Measure stores by SQL beside stores by HandlerSocket
	@$(PYTHON_IN_VENV) -m benchmarks.modes $(ARGS)

bench-growth: setup ## Measure how the cost grows with rows, keys, pipelines, channels
	@$(PYTHON_IN_VENV) -m benchmarks.growth $(ARGS)

bench-expiry: setup ## Measure what the cull and the purge of expired rows cost
	@$(PYTHON_IN_VENV) -m benchmarks.expiry $(ARGS)

bench-dogpile: bench-setup ## Measure regions over hskv, redis, memcached and memory
	@$(PYTHON_IN_VENV) -m benchmarks.dogpile $(ARGS)

bench-limiter: bench-setup ## Measure rate limits beside limits over redis and memcached
	@$(PYTHON_IN_VENV) -m benchmarks.limiter $(ARGS)

bench-staleness: ## Measure how stale reads from replicas are; installs galera-4 too
	@tools/setup.sh galera-4 rsync
	@$(PYTHON_IN_VENV) -m benchmarks.staleness $(ARGS)

bench-instructions: ## Count the instructions of each call; installs valgrind too
	@tools/setup.sh valgrind
	@$(PYTHON_IN_VENV) -m benchmarks.instructions

fuzz: setup ## Feed bytes to the reply reader and the URL parser: ARGS="replies 10000000"
	@$(PYTHON_IN_VENV) -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@HSKV_IMPL=python $(PYTHON_IN_VENV) tools/fuzz.py $(ARGS)

fuzz-codec: setup ## Feed bytes to hskv_fast, also under AddressSanitizer: ARGS=10000000
	@tools/fuzz_codec.sh $(PYTHON_IN_VENV) $(or $(ARGS),50000)

docs: setup ## Build the documentation into build/docs; warnings are errors
	$(PYTHON_IN_VENV) -m sphinx -q -E -W --keep-going -d build/doctrees docs build/docs

package: setup ## Build wheel and sdist, install them in every way, run the tests on the wheel
	@$(PYTHON_IN_VENV) -m pip install --quiet --disable-pip-version-check -e '.[package]'
	@$(PYTHON_IN_VENV) tools/package.py $(ARGS)

pictures: setup ## Draw the pictures of the documentation anew
	@$(PYTHON_IN_VENV) tools/pictures.py
	@$(PYTHON_IN_VENV) -m pip install --quiet --disable-pip-version-check -e '.[pictures]'
	@$(PYTHON_IN_VENV) -m benchmarks.limiter_pictures

lint: setup ## Check style and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: setup ## Check types
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --explicit-package-bases tests examples benchmarks tools

format: setup ## Rewrite the code in the project's format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

ci: ## What .ci/run runs
	@.ci/run

clean: ## Remove what was made here
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
