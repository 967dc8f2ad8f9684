# Everything on a fresh machine: virtual environment, install, run. A second call installs nothing.
VENV ?= .venv
PYTHON ?= python3
PIP = $(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt
QUICKSTART_OUTPUT ?= runs/quickstart
# Where stsb.tsv lies; without it, benchmarks take the project's own sample.
DATA ?= ../shared/data
REPETITIONS ?= 3
SCALE_REPETITIONS ?= 1

.PHONY: quickstart test test-distributed benchmark lint types check clean

quickstart: $(VENV)/.quickstart
	$(VENV)/bin/accelerate launch --config_file accelerate_configs/cpu.yaml recipes/trans_encoder.py \
		--config recipes/quickstart.yaml --output_dir $(QUICKSTART_OUTPUT)

test: $(VENV)/.dev
	$(VENV)/bin/python -m pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-distributed: $(VENV)/.dev
	$(VENV)/bin/python -m pytest tests/distributed

benchmark: $(VENV)/.dev
	rm -rf runs/benchmark
	$(VENV)/bin/python benchmarks/versus_sentence_transformers.py $(if $(wildcard $(DATA)/stsb.tsv),--data-dir $(DATA)) \
		--repetitions $(REPETITIONS) --keep runs/benchmark --output runs/benchmark/versus.json
	$(VENV)/bin/python benchmarks/floor.py runs/benchmark/te_trainer-?
	$(VENV)/bin/python benchmarks/scale.py --repetitions $(SCALE_REPETITIONS) --output runs/benchmark/scale.json

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.dev
	$(VENV)/bin/mypy

check: lint types test

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.quickstart: $(VENV)/bin/pip setup.py constraints.txt
	$(PIP) -e '.[quickstart]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/pip setup.py constraints.txt
	$(PIP) -e '.[dev]'
	touch $@
