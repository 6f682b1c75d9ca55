# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help
help: ## List every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build the binary (debug)
	cargo build --locked

.PHONY: check
check: ## Format, clippy, unit and socket tests; no root, for every commit
	bash e2e/test.sh check

.PHONY: demo
demo: ## Set up all that is needed and show the main job on a real containerd (root)
	bash e2e/demo.sh

.PHONY: test
test: ## Set up all that is needed and run every test (root); all that CI proves
	bash e2e/test.sh all

.PHONY: test-long
test-long: ## The same tests with larger bounds (root)
	AV_LONG=1 bash e2e/test.sh all

.PHONY: soak
soak: ## Half an hour of random pods, kills and hangs on a real containerd (root)
	AV_SOAK_MINUTES=$${AV_SOAK_MINUTES:-30} bash e2e/soak.sh

.PHONY: tools
tools: ## Bring the pinned runtimes and drivers into the tool cache
	bash e2e/tools/setup.sh

.PHONY: static
static: ## Build the static release for an image from scratch, target/static/out
	packaging/static.sh --release

.PHONY: reproducible
reproducible: ## Build the static release twice, in two directories, and compare (minutes)
	packaging/reproducible.sh

.PHONY: sbom
sbom: ## Write the software bill of materials, target/actor-volumes.cdx.json
	packaging/sbom.sh

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: clean
clean: ## Remove what was built here; the tool cache stays
	cargo clean
