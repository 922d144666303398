# make env    an environment in .venv: no root, no compiler, no system libraries
# make test   lint, types and the quick tests
# make demo   the whole pipeline on drawn and spoken corpora
# make fuzz   2,000 damaged films and 500 damaged checkpoints and shards: 11 minutes on one core
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# A CPU or CUDA build, whichever pip is offered. Installed first, or another package picks one.
TORCH  ?= torch==2.13.0
# mediapipe 0.10.21 asks for numpy 1, jax and an OpenCV that needs libGL; it works without all
# three, so it is installed without its wishes and with what it really imports.
FACE   := absl-py attrs 'flatbuffers>=25,<26' 'protobuf>=4.25.3,<7' matplotlib \
          'ffmpeg-python>=0.2,<1' 'imageio-ffmpeg>=0.5' 'espeakng-loader>=0.2.4'

.PHONY: env test lint types quick slow kills fuzz ray demo docs results-lip results-speech clean

env: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet -e '.[dev,eval,export,report,ui,cloud]' $(FACE)
	$(BIN)/pip install --quiet --no-deps mediapipe==0.10.21
	touch $@

test: env lint types quick

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Types are checked on an installed copy: from the root, `pipeline` would be a second package.
types: env
	rm -rf build/types
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p avb

quick: env
	$(BIN)/python -m pytest -m 'not slow and not gpu'

slow: env
	$(BIN)/python -m pytest -m 'slow and not gpu'

kills: env
	$(BIN)/python -m pytest -m slow tests/pipeline/test_kills.py

# Damaged films, checkpoints and shards through the commands, in a pool of warm children; what a
# user should not see is kept in build/fuzz/findings. Again: make fuzz FUZZ='--only checkpoint:17'
fuzz: env
	PYTHONPATH=tests/fuzz $(BIN)/python -m fuzzing --out build/fuzz $(FUZZ)

# Three Ray nodes on this machine; one is taken away, workers are killed.
ray: env
	$(BIN)/pip install --quiet -e '.[ray]'
	$(BIN)/python -m pytest tests/pipeline/test_engine_ray.py

demo: env
	$(BIN)/avb demo

docs: env
	$(BIN)/pip install --quiet -e '.[docs]'
	$(BIN)/mkdocs build --quiet --strict

# The results in results/grid-talker1, from the raw clips of GRID's talker 1: about 40 minutes of a
# core for each network, 12 of them; -j2 trains two at a time. For another recipe or device:
# make results-lip RECIPE=modern DEVICE=cuda RESULTS=results/modern
GRID    ?= ../shared/grid
RECIPE  ?= tiny
DEVICE  ?= cpu
SEEDS   ?= 0 1 2
RESULTS ?= results/grid-talker1
AVB     := $(BIN)/avb
RUNS    := runs/talker1
ONE     := --data runs/shards/grid --split grid-hash --speakers s1 --device $(DEVICE)
TRAIN   := $(ONE) --recipe $(RECIPE)
EVAL    := --data runs/shards/grid --device $(DEVICE)

# One network: make lip-memory-0, speech-baseline-2, ...
arm    = $(word 1,$(subst -, ,$*))
seed   = $(word 2,$(subst -, ,$*))
flags  = --seed $(seed) $(if $(filter baseline,$(arm)),--set model.slots=0)
record = $(RESULTS)/$(@:-$(seed)=)/seed$(seed)
keep   = for name in recipe.yaml metrics.jsonl; do cp $(RUNS)/$@/$$name $(record).$$name; done

results-lip: $(foreach seed,$(SEEDS),lip-memory-$(seed) lip-baseline-$(seed))
	$(AVB) compare $(RESULTS)/lip-memory $(RESULTS)/lip-baseline

results-speech: $(foreach seed,$(SEEDS),speech-memory-$(seed) speech-baseline-$(seed))
	$(AVB) compare $(RESULTS)/speech-memory $(RESULTS)/speech-baseline

lip-%: runs/shards/grid/dataset.json
	$(AVB) train lip $(TRAIN) --unit word $(flags) --out $(RUNS)/$@
	$(AVB) eval lip --ckpt $(RUNS)/$@/best.pt $(EVAL) --out $(record).json
	$(keep)

speech-%: $(RUNS)/judge.pt
	$(AVB) train l2s $(TRAIN) $(flags) --out $(RUNS)/$@
	$(AVB) eval l2s --ckpt $(RUNS)/$@/best.pt --judge $(RUNS)/judge.pt $(EVAL) --out $(record).json
	$(keep)

$(RUNS)/judge.pt: runs/shards/grid/dataset.json
	$(AVB) train judge $(ONE) --out $@

# Status 3: done, but for clips that were refused and listed; real corpora have some.
runs/shards/grid/dataset.json: | env
	$(AVB) prep grid --root $(GRID) --out runs/shards || test $$? -eq 3

clean:
	rm -rf build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
