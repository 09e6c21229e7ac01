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
	@echo 'make bench    measure this machine into bench/results/ (minutes)'
	@echo 'make bench-long  memory under load, and a soak (hours; 30 GB of disk)'

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

bench:
	@sh .ci/environment "$(PYTHON)" .venv bench || sh .ci/environment "$(PYTHON)" .venv
	.venv/bin/python -m bench record_cost
	.venv/bin/python -m bench fill_to_commit
	.venv/bin/python -m bench writer_throughput --workers 1,4,8 --seconds 4
	.venv/bin/python -m bench alternatives --workers 4 --rate 1000,10000,max --seconds 2
	.venv/bin/python -m bench recovery_time
	.venv/bin/python -m bench restart_time
	.venv/bin/python -m bench writer_kill_gap
	.venv/bin/python -m bench writer_kill_timeline
	.venv/bin/python -m bench supervisor_loop_lag

# Ten minutes for memory, four hours for the soak; 30 GB of disk.
bench-long:
	@sh .ci/environment "$(PYTHON)" .venv bench || sh .ci/environment "$(PYTHON)" .venv
	.venv/bin/python -m bench memory --workers 4 --rate 10000 --seconds 600 --durability power
	.venv/bin/python -m bench soak --workers 4 --rate 5000 --seconds 14400 --durability power

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
