# `make run` shows Horizon, `make test` proves it. Only python3, make and git are assumed.
# PYTHON chooses the interpreter (3.11 or newer) that .venv is made of: make test PYTHON=python3.12

PYTHON ?= python3
CORES := $(shell nproc 2>/dev/null || echo 2)
# The demo's strategies, database and journals; ignored by git, and kept, so that every `make run` recovers from the one before.
DEMO := demo

# In this order: what tells most in the least time comes first, the folders not named here last.
FAST := tests/unit/ tests/property/ tests/docs/
FOLDERS := $(filter-out %/__pycache__/,$(wildcard tests/*/))
TESTS := $(filter $(FOLDERS),$(FAST)) $(filter-out $(FAST),$(FOLDERS))
PYTEST := .venv/bin/python -m pytest -q -n $(CORES) --maxschedchunk 2

.PHONY: help run test test-root test-systemd test-power chaos check format bench bench-long bench-smoke test-lowest test-beside-supervisord

help:
	@echo 'make run      install into .venv, then run three example strategies on one database for 30 seconds'
	@echo 'make test     install with the test tools, then run the whole test suite'
	@echo 'make test-root   what needs root, a C compiler and libfaketime: disks that fill up, system calls that fail, clocks that jump'
	@echo 'make test-systemd  the service in a throw-away machine with a real systemd (root; minutes)'
	@echo 'make test-power  an emulated machine: pull its plug, let its strategies take all memory (root; minutes)'
	@echo 'make check    format, lint, types, unit and property tests: what to run before every commit'
	@echo 'make format   let the formatter and the linter repair what they can'
	@echo 'make chaos    kill everything 200 times and count what was lost (minutes)'
	@echo 'make bench    measure this machine into bench/ (20 minutes; needs 6 GB of free disk)'
	@echo 'make bench-long  memory for ten minutes, and a soak of four hours (needs 30 GB of free disk)'
	@echo 'make bench-smoke  has anything become twice as slow? (seconds)'

run:
	@sh .ci/environment "$(PYTHON)" .venv
	@test -f $(DEMO)/horizon.toml || .venv/bin/horizon init $(DEMO)
	@cd $(DEMO) && ../.venv/bin/horizon up --duration 30
	@echo "The program is .venv/bin/horizon; 'make run' again goes on from here, 'rm -r $(DEMO)' forgets it."

test:
	@sh .ci/environment "$(PYTHON)" .venv dev
	@$(PYTEST) $(TESTS)

test-root:
	@test "$$(id -u)" = 0 || { echo 'horizon: make test-root mounts small disks, which only root may do' >&2; exit 2; }
	@sh .ci/environment "$(PYTHON)" .venv dev
	@$(PYTEST) -m 'root or compiler or faketime' tests

# One machine for all of its tests, so one process.
test-systemd:
	@test "$$(id -u)" = 0 || { echo 'horizon: make test-systemd boots a container, which only root may do' >&2; exit 2; }
	@sh .ci/environment "$(PYTHON)" .venv dev
	@.venv/bin/python -m pytest -q -m systemd tests/systemd

# One machine for all of its tests, so one process. The guest's tree is kept in build/power, or in $SCRATCH/horizon-power.
test-power:
	@sh .ci/environment "$(PYTHON)" .venv dev
	@.venv/bin/python -m pytest -q -m slow tests/power

check:
	@sh .ci/environment "$(PYTHON)" .venv dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	@$(PYTEST) tests/unit tests/property tests/docs/test_map.py

format:
	@sh .ci/environment "$(PYTHON)" .venv dev
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

# Items that need no hours, each with its own defaults; the tables and pictures of bench/README.md come out of it.
BENCHMARKS := record_cost fill_to_commit writer_throughput alternatives recovery_time restart_time writer_kill_gap writer_kill_timeline \
	supervisor_loop_lag memory

bench:
	@test "$$(df -Pk bench | awk 'END {print $$4}')" -ge 6291456 || \
		{ echo 'horizon: make bench needs 6 GB of free disk where bench/ lies' >&2; exit 2; }
	@sh .ci/environment "$(PYTHON)" .venv bench || sh .ci/environment "$(PYTHON)" .venv
	@for name in $(BENCHMARKS); do echo "== $$name"; .venv/bin/python -m bench $$name || exit; done
	@.venv/bin/python -m bench.table

# Ten minutes for memory, four hours for the soak.
bench-long:
	@test "$$(df -Pk bench | awk 'END {print $$4}')" -ge 31457280 || \
		{ echo 'horizon: make bench-long needs 30 GB of free disk where bench/ lies' >&2; exit 2; }
	@sh .ci/environment "$(PYTHON)" .venv bench || sh .ci/environment "$(PYTHON)" .venv
	.venv/bin/python -m bench memory --seconds 600
	.venv/bin/python -m bench soak
	@.venv/bin/python -m bench.table

# 200 kills; CHAOS='--folder /mnt/disk --durability power' tries another disk, `.venv/bin/horizon chaos --help` says what else.
chaos:
	@sh .ci/environment "$(PYTHON)" .venv
	@.venv/bin/horizon chaos $(CHAOS)

# Ratios within one run, against those in bench/results/smoke.json.
bench-smoke:
	@sh .ci/environment "$(PYTHON)" .venv
	.venv/bin/python -m bench smoke

# The oldest releases that pyproject.toml allows, in an environment of their own.
test-lowest:
	@sh .ci/lowest "$(PYTHON)"

# supervisord has the import name `supervisor` too: both must work in one environment, whichever came first.
test-beside-supervisord:
	@sh .ci/beside_supervisord "$(PYTHON)"
