# Everything on a fresh machine: virtual environment, install, run. A second call installs nothing.
VENV ?= .venv
LOWEST ?= .venv-lowest
PYTHON ?= python3
PIP = $(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST = -m pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder
QUICKSTART_OUTPUT ?= runs/quickstart
# Where stsb.tsv lies; without it, benchmarks take the project's own sample.
DATA ?= ../shared/data
REPETITIONS ?= 3
SCALE_REPETITIONS ?= 1

.PHONY: quickstart test test-distributed test-gpu gpu-check gpu-evidence test-lowest chromium benchmark lint types check index clean

# On a GPU where there is one.
quickstart: CONFIG = 'from te_trainer.distributed import device_type; print("cpu" if device_type() == "cpu" else "single_gpu")'
quickstart: $(VENV)/.quickstart
	config=$$($(VENV)/bin/python -c $(CONFIG)) && \
	$(VENV)/bin/accelerate launch --config_file accelerate_configs/$$config.yaml recipes/trans_encoder.py \
		--config recipes/quickstart.yaml --output_dir $(QUICKSTART_OUTPUT)

test: $(VENV)/.dev chromium
	$(VENV)/bin/python $(PYTEST)

test-distributed: $(VENV)/.dev
	$(VENV)/bin/python -m pytest tests -m distributed

# On a machine with a GPU; elsewhere these tests are skipped.
test-gpu: $(VENV)/.dev
	$(VENV)/bin/python -m pytest tests -m gpu

# On a machine with a GPU, with its own Python: see docs/gpu.md. MODE=cpu tries the scripts on a CPU.
gpu-check:
	$(PYTHON) benchmarks/gpu/run_checks.py

gpu-evidence:
	$(PYTHON) benchmarks/gpu/evidence.py

# The whole suite with the oldest versions that pyproject.toml allows.
test-lowest: $(LOWEST)/.installed chromium
	PYTHONPATH=. $(LOWEST)/bin/python $(PYTEST)

# The tests of report.html open it in Debian's Chromium.
chromium:
	tests/install_chromium.sh

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
	$(VENV)/bin/mypy --config-file benchmarks/mypy.ini benchmarks

check: lint types test

# recipes/README.md, from the headers of the recipes
index:
	$(PYTHON) tests/recipe_index.py

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.quickstart: $(VENV)/bin/pip pyproject.toml setup.py constraints.txt
	$(PIP) -e '.[quickstart]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/pip pyproject.toml setup.py constraints.txt
	$(PIP) -e '.[dev]'
	touch $@

$(LOWEST)/.installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(LOWEST)
	grep -o '"[a-z][a-z0-9-]*>=[0-9.]*' pyproject.toml | tr -d '"' | sed 's/>=/==/' > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt '.[test]'
	$(LOWEST)/bin/pip uninstall --quiet --yes te_trainer
	touch $@
