# Each of demo, test, check and bench does all of its own set-up; done before, that takes a second.
# The engine and the image are chosen by scripts/setup; SANDBOX_IMAGE overrides the image.

SHELL := /bin/sh
PYTHON3 ?= python3
BIN := .venv/bin
# Read when a recipe runs, for only then set-up has written it.
IMAGE = $${SANDBOX_IMAGE:-$$(cat .venv/sandbox-image)}
RUN = SANDBOX_IMAGE="$(IMAGE)"
SERVERS = POSTGRES_IMAGE="$$(cat .venv/postgres-image)" REDIS_IMAGE="$$(cat .venv/redis-image)"
WORKERS = 2 # of the test suite; half of its time is waiting for the engine
N = 20 # runs of a soak
SECONDS = 30 # of each fuzzer

# Each test of the plugin is a pytest run of its own, of 2 s of CPU with compiled modules and of 5 s where a machine forbids
# to write them.
export PYTHONDONTWRITEBYTECODE =

PODMAN := yes
TESTS = tests/contract # that `make podman` runs

.PHONY: help demo test podman soak check lint fuzz bench agent format setup engine servers clean

help:
	@echo "make demo    run the examples in containers"
	@echo "make test    run the test suite; the agent has sanitizers where it runs without an engine"
	@echo "             and the contract tests once more on Podman; PODMAN=no leaves these out"
	@echo "make podman  run the contract tests on Podman"
	@echo "make soak    run the test suite N=20 times; nothing may be left after any of them"
	@echo "make check   lint, and fuzz for half a minute"
	@echo "make lint    ruff, mypy --strict, pyright, import-linter"
	@echo "make fuzz    the readers of frames on both sides, of archives and paths; SECONDS=1800 for half an hour each"
	@echo "make bench   run the benchmarks, docker-py's own figures beside ours"
	@echo "make agent   build the agent for every architecture"
	@echo "make format  let ruff format and fix"
	@echo "make clean   remove what was built; the engine and its images stay"

# They run on what is there.
demo bench: export PODMAN := no

demo: engine servers
	$(RUN) $(SERVERS) $(BIN)/python -m pytest examples -v

test: engine # the agent that users get runs in containers, the one with sanitizers where it is a plain subprocess
	@$(BIN)/python -m pytest_sandbox.agent.build --sanitize
	$(RUN) SANDBOX_TEST_AGENT=$(CURDIR)/build/agent-sanitized $(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal
	@if [ "$(PODMAN)" != no ]; then $(MAKE) --no-print-directory podman; fi

podman: engine
	SANDBOX_TEST_ENGINE=podman $(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal -m "docker and not private_engine" $(TESTS)

soak: engine
	$(RUN) $(BIN)/python scripts/soak $(N) -n $(WORKERS) --dist=worksteal -q

check: lint fuzz

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

fuzz: setup
	fuzz/run $(SECONDS)

bench: engine
	$(RUN) $(BIN)/python -m benchmarks

agent: setup

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

setup:
	@$(PYTHON3) scripts/setup

engine:
	@$(PYTHON3) scripts/setup engine

servers: engine
	@$(BIN)/python scripts/servers.py

clean:
	rm -rf .venv build dist pytest_sandbox/agent/bin
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
