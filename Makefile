# Two commands for newcomers: `make demo` and `make test`. Each sets up what it needs, once.
# VENV=... puts the virtual environment elsewhere; PYTHON=... picks the interpreter that makes it.

PYTHON ?= python3
VENV ?= .venv
STUDIES ?= 900
SEED ?= 0

BIN := $(VENV)/bin
# Dependencies are installed again only when pyproject.toml changes; the package only when the checkout moves.
DEPS := $(VENV)/deps-$(shell sha256sum pyproject.toml | cut -c1-16)
HERE := $(VENV)/here-$(shell pwd | sha256sum | cut -c1-16)

.PHONY: demo test test-llms test-cluster golden skips lint docs wheel bench bench-quick minimum test-deepspeed clean

$(DEPS): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("reg2rg needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar off --quiet torch torchvision
	$(BIN)/python -m pip install --progress-bar off --quiet --editable '.[dev]'
	rm -f $(VENV)/deps-* $(VENV)/here-*
	touch $@

$(HERE): $(DEPS)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	rm -f $(VENV)/here-*
	touch $@

# The demo is what a lab would type, on synthetic scans. Every step goes on where an earlier run of it stopped.
RUN := $(BIN)/reg2rg
FULL := --config phantom.yaml --seed_everything $(SEED)
LAST := valid_$(STUDIES)_a_1
BLIND := $(FULL) --config ablations/text_only.yaml --trainer.default_root_dir demo/runs_text_only --trainer.max_steps 150 --trainer.val_check_interval 150

demo: $(HERE)
	$(RUN) data phantom demo/data --studies $(STUDIES) --seed $(SEED) --dicom demo/dicom
	$(RUN) data check $(FULL) --out demo/check
	$(RUN) data prepare $(FULL) --bake
	test -f demo/lm/config.json || $(RUN) lm demo/lm $(FULL) --seed $(SEED) --cues
	$(RUN) fit $(FULL) --ckpt_path last
	test -d demo/model || $(RUN) calibrate $(FULL) --model demo/runs/checkpoints/last.ckpt --rest 60 --out demo/model
	$(RUN) predict $(FULL) --ckpt_path demo/model
	$(RUN) fit $(BLIND) --ckpt_path last
	$(RUN) predict $(BLIND) --ckpt_path demo/runs_text_only/checkpoints/last.ckpt
	$(RUN) page $(FULL) --predictions demo/runs/predictions --compare 'floor: text only, no image=demo/runs_text_only/predictions' --curves 'Reg2RG=demo/runs/csv' --curves 'text only=demo/runs_text_only/csv' --title 'Synthetic chest CT, region by region' --out demo/page.html
	$(RUN) report demo/dicom/$(LAST) --model demo/model --masks 'demo/data/valid_region_mask/seg_$(LAST)/{region}.nii.gz' -o demo/report --formats JSON,Page,FHIR,SEG,TextSR,MeasurementSR,PDF

PYTEST := -m pytest -n 2 --dist worksteal -m 'not slow'

test: $(HERE)
	$(BIN)/python -m slipcover --source src/reg2rg --json --out .coverage.json $(PYTEST)
	$(BIN)/python -m slipcover --merge .coverage.json --out /dev/null --skip-covered --fail-under 97

# Every family of language models that the tests know, against the contract.
test-llms: $(HERE)
	$(BIN)/python -m pytest -n 2 -q tests/contract/test_language_models.py tests/unit/models/llm

# Jobs on a real Slurm (Debian's slurm-wlm and munge, as root) while things die. Needs the extra `slurm`.
test-cluster: $(HERE)
	$(BIN)/python benchmarks/cluster_faults.py

# The committed list of what may be skipped, with what this machine skips added.
skips: $(HERE)
	$(BIN)/python $(PYTEST) --write-skips

golden: $(HERE)  # after a change that is meant to move numbers or texts; commit what it shows
	$(BIN)/python -m tests.golden.renew

lint: $(HERE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/count.py --check

docs: $(HERE)
	$(BIN)/mkdocs build --strict --site-dir site

# The package as a user gets it: built, installed outside the checkout, run for two training steps.
wheel: $(HERE)
	$(BIN)/python tools/check_wheel.py

bench: $(HERE)
	$(BIN)/python benchmarks/all.py

bench-quick: $(HERE)
	$(BIN)/python benchmarks/quick.py

# The tests with the lowest releases that pyproject.toml promises; downloads several GB.
MINIMUM := $(VENV)-minimum

minimum:
	$(PYTHON) -m venv $(MINIMUM)
	$(MINIMUM)/bin/python -m pip install --quiet --upgrade pip packaging
	$(MINIMUM)/bin/python tools/minimum.py --output $(MINIMUM)/constraints.txt
	$(MINIMUM)/bin/python -m pip install --progress-bar off --quiet --constraint $(MINIMUM)/constraints.txt --editable '.[dev]'
	$(MINIMUM)/bin/python $(PYTEST)

# DeepSpeed beside everything else, in an environment of its own: ZeRO-2 on CPUs, one and two ranks. Wants a C++ compiler.
DEEPSPEED := $(VENV)-deepspeed
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

test-deepspeed: $(HERE)
	$(BIN)/python -m venv $(DEEPSPEED)
	$(BIN)/python $(PURELIB) > "$$($(DEEPSPEED)/bin/python $(PURELIB))/base.pth"
	DS_BUILD_OPS=0 $(DEEPSPEED)/bin/python -m pip install --progress-bar off --quiet --editable '.[deepspeed]'
	TORCH_EXTENSIONS_DIR=$(abspath $(DEEPSPEED))/extensions $(DEEPSPEED)/bin/python -m pytest tests/integration/test_deepspeed.py

clean:
	rm -rf .venv .venv-minimum .venv-deepspeed site demo .pytest_cache .mypy_cache .ruff_cache .coverage*
