# make env    an environment in .venv: no root, no compiler, no system libraries
# make test   lint, types and the quick tests
# make demo   the whole pipeline on drawn and spoken corpora
# make ends   the quick tests with the newest and the oldest end of each declared range
# make reference   mediapipe's own runtime beside LiteRT: tests that compare them, and its detector
# make fuzz   2,000 damaged films, 500 checkpoints and shards, 1,000 tables and alignments, 600 others
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Installed first, or another package picks one. On Linux pip's own index has CUDA builds alone: for
# the CPU one give PyTorch's index of those, make env TORCH_INDEX=URL.
TORCH  ?= torch==2.13.0
TORCH_INDEX ?=
EXTRAS := prep,dev,eval,export,report,ui,cloud

.PHONY: env test lint types quick other slow kills scale same fuzz ray demo docs ends reference audit clean

env: $(VENV)/installed

# A wrong Python, and what is coming, are told before anything is.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) tools/fits.py $(if $(TORCH_INDEX),,pypi)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install '$(TORCH)' $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install -e '.[$(EXTRAS)]'
	$(BIN)/avb models fetch
	touch $@

test: env lint types quick

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy -p avb

# Torch's threads would stand in each other's way.
quick: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 -m 'not slow and not gpu'

# On another Python than the tests': shards, a training and words, by the commands themselves.
OTHER ?= python3.12
other:
	$(OTHER) -m venv build/other
	build/other/bin/pip install --quiet '$(TORCH)' $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	build/other/bin/pip install --quiet -e '.[prep]'
	build/other/bin/pip check
	build/other/bin/avb models fetch
	rm -rf build/smoke
	build/other/bin/avb synth grid --clips 32 --out build/smoke/raw
	build/other/bin/avb prep grid --root build/smoke/raw --out build/smoke/shards
	build/other/bin/avb verify build/smoke/shards
	build/other/bin/avb train lip --data build/smoke/shards/grid --recipe tiny --steps 4 \
	    --set warmup=1 --set validate_every=4 --set batch_size=4 --device cpu --out build/smoke/run
	build/other/bin/avb infer lip $$(ls build/smoke/raw/s*/video/*.mpg | head -n 1) --ckpt build/smoke/run

slow: env
	$(BIN)/python -m pytest -m 'slow and not gpu'

kills: env
	$(BIN)/python -m pytest -m slow tests/pipeline/build/test_kills.py

# What millions of clips cost, and Ray's driver: proofs that no user needs.
scale: env
	$(BIN)/python tests/scale/growth.py 1000000
	$(BIN)/pip install --quiet -e '.[ray]'
	$(BIN)/python tests/scale/ray_driver.py

# Does this checkout make and say what a revision does? On real clips: AVB_TEST_GRID and its like.
same: SAME = $(BIN)/python tests/scale/same.py
same: CLIPS = --grid $(AVB_TEST_GRID) --grid-original $(AVB_TEST_GRID_ORIGINAL)
same: env
	rm -rf build/before && git worktree prune && git worktree add --detach build/before $(BEFORE)
	$(SAME) record --checkout build/before $(CLIPS) --out build/before.json
	$(SAME) record --checkout . $(CLIPS) --out build/after.json
	$(SAME) compare build/before.json build/after.json

# Damaged films, checkpoints and shards through the commands, in a pool of warm children; what a
# user should not see is kept in build/fuzz/findings. Again: make fuzz FUZZ='--only checkpoint:17'
fuzz: env
	PYTHONPATH=tests/fuzz:tests/shared $(BIN)/python -m fuzzing --out build/fuzz $(FUZZ)

# Three Ray nodes on this machine; one is taken away, workers are killed.
ray: env
	$(BIN)/pip install --quiet -e '.[ray]'
	$(BIN)/python -m pytest tests/pipeline/build/test_executor_ray.py

# The oldest of all that pyproject.toml allows on the oldest Python, the newest on later ones that are
# here. Some of them: make ends ENDS=3.12
ends:
	bash tests/ends.sh $(ENDS)

# mediapipe without its wishes (numpy 1, jax, an OpenCV that needs libGL), in a folder of its own.
reference: env build/reference/mediapipe
	PYTHONPATH=build/reference $(BIN)/python -m pytest tests/pipeline/clip/test_facemesh_reference.py

build/reference/mediapipe:
	$(BIN)/pip install --quiet --no-deps --target build/reference mediapipe==0.10.21 \
	    'protobuf>=4.25.8,<7' 'flatbuffers>=25,<26' absl-py attrs

# Known vulnerabilities of what is installed; asks the registry about each. One that it knows nothing
# of is an error, or a registry that does not answer would be an all-clear.
audit: env
	$(BIN)/pip install --quiet pip-audit
	mkdir -p build
	$(BIN)/pip freeze --exclude-editable | sed 's/+.*//' > build/audit.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement build/audit.txt

demo: env
	$(BIN)/avb demo

docs: env
	$(BIN)/pip install --quiet -e '.[docs]'
	$(BIN)/mkdocs build --quiet --strict

clean:
	rm -rf build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
