# inferd: `make demo` shows it, `make test` proves it, `make help` lists the rest.
PYTHON  ?= python3
# cpu, or cuda for setup, demo and gpu-check: the two builds of ONNX Runtime exclude each other.
ENGINES ?= cpu
VENV    := $(if $(filter cuda,$(ENGINES)),.venv-cuda,.venv)
BIN     := $(VENV)/bin
PIP     := $(BIN)/pip --disable-pip-version-check
LOCKS   := packaging/locks
COMPILE := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

.DEFAULT_GOAL := help
.PHONY: help demo setup dev test lint types check unit test-clients test-fleet models docs stubs lock wheel wheelhouse deb rpm bundle bench gpu-check test-packages test-system clean

help:  ## list the targets
	@grep -E '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("inferd needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.setup: $(BIN)/python $(LOCKS)/$(ENGINES).txt pyproject.toml
	@$(PIP) install -q --require-hashes -r $(LOCKS)/$(ENGINES).txt
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.setup $(LOCKS)/dev.txt
	@$(PIP) install -q --require-hashes -r $(LOCKS)/dev.txt
	@touch $@

setup: $(VENV)/.setup  ## install inferd and its engines into .venv (ENGINES=cuda: into .venv-cuda)
dev: $(VENV)/.dev  ## the same, with everything the tests need

demo: setup ; @$(BIN)/inferd demo  ## serve the bundled INT8 model, send it real digits, show what came back

test: lint types unit  ## lint, types and all tests
check: lint types  ## lint and types

lint: dev  ## ruff (import contracts run as a test)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: dev ; $(BIN)/mypy  ## mypy --strict
unit: dev models  ## all tests
	$(BIN)/pytest -n auto --dist worksteal

test-clients: dev ; $(BIN)/python -m tests.clients.fetch && TEST_CLIENTS=1 $(BIN)/pytest tests/clients --timeout 600  ## perf_analyzer and kserve's client, fetched by checksum, and callers that mean harm
test-fleet: dev  ## five daemons in network namespaces (root): discovery, trust, and calls while devices come and go
	FLEET_CALLS=$(or $(CALLS),5000) $(BIN)/pytest tests/fleet -s --timeout 900

models: dev  ## fetch the test models by checksum and make their INT8 versions
	$(BIN)/python -m tests.models.fetch

docs: setup ; $(BIN)/inferd config --docs > docs/configuration.md  ## write the generated pages
stubs: dev ; $(BIN)/python packaging/stubs.py  ## write the messages of gRPC from the .proto files
bench: dev models ; $(BIN)/python -m bench.overhead  ## overhead against a bare echo and the raw engine
gpu-check: $(VENV)/.$(if $(filter cuda,$(ENGINES)),setup,dev)  ## CUDA and TensorRT against the CPU (use ENGINES=cuda)
	$(BIN)/python -m bench.gpu_check

wheel: dev ; $(BIN)/hatchling build -t wheel  ## build the wheel into dist/
build/wheelhouse: ; @echo "make wheelhouse fetches what the packages carry"; exit 1
wheelhouse: setup  ## fetch what the packages carry, by checksum, into build/wheelhouse
	@$(BIN)/python packaging/build wheelhouse

deb rpm bundle: export PIP_NO_INDEX := 1
deb rpm bundle: export PIP_FIND_LINKS := $(CURDIR)/build/wheelhouse
deb rpm bundle: build/wheelhouse setup  ## build packages in dist/ from the wheelhouse, without a network (bundle: MODELS=FOLDER)
	@$(BIN)/python packaging/build $@ $(if $(MODELS),--models $(MODELS))

test-packages: dev build/wheelhouse ; TEST_PACKAGES=1 $(BIN)/pytest tests/packaging  ## the real packages, bundle and container
test-system: dev deb  ## install the .deb in a Debian under systemd-nspawn and try all that can happen there (root)
	@TEST_SYSTEM=$$(ls -t dist/inferd_*.deb | head -1) $(BIN)/pytest tests/system

lock:  ## resolve the lock files anew (needs uv)
	$(COMPILE) --extra cpu --extra embeddings --extra grpc --extra images -o $(LOCKS)/cpu.txt pyproject.toml packaging/build.in
	$(COMPILE) -c $(LOCKS)/cpu.txt --extra dev -o $(LOCKS)/dev.txt pyproject.toml packaging/build.in
	$(COMPILE) -c $(LOCKS)/cpu.txt --extra cuda --extra embeddings --extra grpc --extra images --extra quantize -o $(LOCKS)/cuda.txt pyproject.toml packaging/build.in
	echo kserve==0.21.0 | $(COMPILE) -o $(LOCKS)/clients.txt -

clean:  ## remove the environment and build output
	rm -rf .venv .venv-cuda dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
