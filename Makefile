# Uptake's commands. `make help` lists them.

MODULES  := schemas ingest-gateway enricher rollup-writer deploy test
PACKAGES := $(MODULES:%=./%/...)
TOOLS    := $(CURDIR)/.cache/tools

GOFUMPT_VERSION  := v0.12.0
GOLANGCI_VERSION := v2.15.0

GO ?= go

.DEFAULT_GOAL := help
.PHONY: help build run demo test test-long sdks race fuzz bench release faults identity lint fmt modules tools clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

BINARIES := ingest-gateway enricher rollup-writer deploy/standalone deploy/import

build: ## the programs that the documentation names, into bin/
	$(GO) build -o bin/ $(BINARIES:%=./%)

# `go run` would report an orderly stop as an error.
run: ## everything on this machine, with data that survives a restart
	@[ -x bin/standalone ] || echo "Building bin/standalone; the first build takes a few minutes."
	@$(GO) build -o bin/standalone ./deploy/standalone && exec bin/standalone $(ARGS)

demo: ## a week of sample traffic through a standalone of its own, and the rollups it gives
	$(GO) run ./test/cmd/demo $(ARGS)

test: ## every test, on real parts where the machine has what they need
	$(GO) test -timeout 30m $(PACKAGES)
	GOWORK=off $(GO) test -C test/alerts ./...

LONG = $(sort $(dir $(shell grep -rlE 'longtest\.|UPTAKE_LONG' --include='*_test.go' $(MODULES))))
test-long: ## the packages that have long tests (outages, brokers and replicas killed, browsers), with these
	UPTAKE_LONG=1 $(GO) test -timeout 45m $(LONG:%=./%)

sdks: ## every SDK that installs here against the whole path: Node's, Go's, browsers', Python's, Java's and Rust's (ARGS=-update writes docs/sources)
	UPTAKE_LONG=1 UPTAKE_SDKS=all $(GO) test -timeout 90m -run 'TestSDKs|TestBrowsers|TestLanguages' ./test/conformance $(ARGS)

race: ## the tests of the services' packages under the race detector
	$(GO) test -race -short -timeout 30m ./schemas/... ./ingest-gateway/... ./enricher/... ./rollup-writer/...

FUZZTIME ?= 20000x
fuzz: ## every fuzz target for FUZZTIME (20000x, or a time such as 5m)
	GO="$(GO)" FUZZTIME="$(FUZZTIME)" ./deploy/dev/fuzz.sh $(MODULES)

bench: ## the Go benchmarks of the hot parts and each stage beside its floor, into docs/performance.*: the load of that page, in about seven minutes
	$(GO) run ./test/cmd/bench -full -benchtime 50ms -out docs/performance.json -doc docs/performance.md $(ARGS)

release: ## binaries for linux on amd64 and arm64 with SBOMs, licences and checksums, into bin/release
	$(GO) run ./test/cmd/release $(ARGS)

N ?= 500
faults: ## N seeded faults (500), with a table of what they did, appended to docs/faults.jsonl
	$(GO) run ./test/cmd/faults -n $(N) -ledger docs/faults.jsonl -page docs/faults.md $(ARGS)

WORLDS ?= 100
identity: ## WORLDS (100) random worlds of users and visitors against killed services
	IDENTITY_WORLDS=$(WORLDS) $(GO) test -timeout 60m -v ./test/identity

lint: $(TOOLS)/golangci-lint ## golangci-lint, with gofumpt, over every module
	@for m in $(MODULES); do echo "lint $$m"; (cd $$m && $(TOOLS)/golangci-lint run ./...) || exit 1; done

fmt: $(TOOLS)/gofumpt ## format every file
	$(TOOLS)/gofumpt -w $(MODULES)

modules: ## build and vet each module alone, as someone who imports it would
	@for m in $(MODULES) test/chart/renderer test/alerts test/conformance/drivers/go; do echo "module $$m"; (cd $$m && GOWORK=off $(GO) build ./... && GOWORK=off $(GO) vet ./... && GOWORK=off $(GO) mod tidy -diff) || exit 1; done

tools: $(TOOLS)/golangci-lint $(TOOLS)/gofumpt ## install the pinned development tools below .cache

$(TOOLS)/golangci-lint:
	GOBIN=$(TOOLS) GOWORK=off $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

$(TOOLS)/gofumpt:
	GOBIN=$(TOOLS) GOWORK=off $(GO) install mvdan.cc/gofumpt@$(GOFUMPT_VERSION)

clean: ## remove what was built, fetched and stored below this folder
	rm -rf .cache bin data
