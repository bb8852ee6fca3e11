# Weir. `make help` lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/weir-gateway/weir/core/cli.Version=$(VERSION)
export CGO_ENABLED ?= 0

# A guest plugin is a folder of plugins/ with a main package for WASI.
GUESTS := $(patsubst plugins/%/main.go,%,$(wildcard plugins/*/main.go))
GUEST_FILES := $(foreach g,$(GUESTS),plugins/$(g)/$(g).wasm.gz)
GO_FILES := $(shell find . -name '*.go' -not -path './node_modules/*' -not -path './.*/*')
# What go:embed takes in beside Go files: policies, tables of SQL functions, the demo's data.
EMBEDDED := $(shell find policies protocols examples -type f -not -name '*.go' -not -name '*.md')

.PHONY: help
help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: bin/weir ## build bin/weir and the plugins that it carries

.PHONY: plugins
.SECONDARY: $(GUEST_FILES:.gz=)
plugins: $(GUEST_FILES) ## build the guests in plugins/ to WebAssembly, and pack them for the binary

.PHONY: sdks
sdks: ## build the examples of every SDK; installs the tools that are missing, as root
	@sdk/build.sh -install

.PHONY: sdks-here
sdks-here: # those whose tools are there; continuous integration tries to install the rest
	@$(if $(CI),sdk/build.sh -install || )sdk/build.sh

.PHONY: bench-plugins
bench-plugins: sdks-here ## what a guest costs: a cell masked, a command asked, one replaced; sdk/BENCHMARKS.md has the targets
	go test -run '^$$' -bench '^Benchmark(Floor|Mask|RoundTrip|PII)$$' -benchtime 1s -count $(or $(COUNT),5) ./core/wasm
	go test -count 1 -v -run '^TestHotSwap$$' ./examples/faults -args -swap-statements 20000

.PHONY: load-ssh
load-ssh: ## a gigabyte each way through SSH, a million changes of the window, a thousand channels, keys anew every KiB
	go test -count 1 -v -timeout 30m -run '^(TestTransfer|TestWindowChangeFlood|TestChannelsInTurn|TestSmallWindow|TestRekey)$$' ./protocols/ssh -args -megabytes 1024 -load

.PHONY: soak-ssh
soak-ssh: plugins ## gigabytes each way through a real gateway: its memory must stay within bounds (MEGABYTES=n)
	go test -count 1 -v -timeout 30m -run '^TestMemory$$' ./protocols/ssh/bench -args -megabytes $(or $(MEGABYTES),2048)

.PHONY: bench-ssh
bench-ssh: bin/weir ## what Weir costs beside a direct scp and the barest SSH proxy; writes protocols/ssh/BENCHMARKS.md (MEGABYTES=n ROUNDS=n)
	go build -o bin/bench-ssh ./protocols/ssh/bench
	bin/bench-ssh -weir bin/weir -megabytes $(or $(MEGABYTES),1024) -rounds $(or $(ROUNDS),5) -o protocols/ssh/BENCHMARKS.md

.PHONY: bench-policies
bench-policies: ## what a policy costs: kept and not, 1,000 rules, a reload of 100 MB, a backtest; writes policies/BENCHMARKS.md
	@mkdir -p bin
	go build -o bin/bench-policies ./core/opa/bench
	bin/bench-policies -o policies/BENCHMARKS.md

.PHONY: bench-journal
bench-journal: ## durable commits, records into the archive, verification, the index; writes core/journal/BENCHMARKS.md (COUNT, SESSIONS)
	@mkdir -p bin
	go build -o bin/bench-journal ./core/journal/bench
	bin/bench-journal -rounds $(or $(COUNT),5) -sessions $(or $(SESSIONS),100000) -o core/journal/BENCHMARKS.md

.PHONY: bench-index
bench-index: ## what `weir sessions` takes over 100,000 sessions; fails over 100 ms (SESSIONS=n)
	go test -count 1 -v -timeout 30m -run '^TestQuick$$' ./core/archive/index -sessions $(or $(SESSIONS),100000)

.SECONDEXPANSION:
plugins/%.wasm: $$(shell find plugins/$$(*D) plugins/pii/detect sdk/go -name '*.go' -not -name '*_test.go') go.mod
	@echo "building $@"
	@GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags='-s -w' -o $@ ./plugins/$(*D)

plugins/%.wasm.gz: plugins/%.wasm
	@gzip -9 -n -c $< > $@.new && mv $@.new $@

bin/weir: $(GUEST_FILES) $(GO_FILES) $(EMBEDDED) go.mod
	@mkdir -p bin
	@echo "building $@ (the first time takes a few minutes)"
	@go build -ldflags '$(LDFLAGS)' -o $@ .

bin/demo bin/agent-loop: $(GO_FILES) $(EMBEDDED) go.mod
	@mkdir -p bin
	@echo "building $@"
	@go build -o $@ ./examples/$(@F)

.PHONY: demo
demo: bin/weir bin/demo bin/agent-loop ## an agent's session, guarded, masked, recorded and replayed (KEEP=1 leaves it up)
	bin/demo -bin bin $(if $(KEEP),-keep)

.PHONY: cluster
cluster: bin/weir ## three NATS servers, two gateways, two archive workers; one of each is killed under load (KEEP=1 leaves it up)
	go build -o bin/cluster ./examples/cluster
	bin/cluster -weir bin/weir $(if $(KEEP),-keep)

.PHONY: torture
torture: $(GUEST_FILES) ## break a cluster at random under load, and see that nothing is lost (KILLS=1000 RECORDS=n WITHIN=2h FLIPS=1)
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS) -X github.com/weir-gateway/weir/core/config.leastKept=1s' -o bin/weir-torture .
	go build -o bin/torture ./examples/cluster/torture
	WEIR_BINARY=bin/weir-torture bin/torture -kills $(or $(KILLS),1000) -records $(or $(RECORDS),0) -within $(or $(WITHIN),0) $(if $(FLIPS),-flips)

.PHONY: test
test: plugins sdks-here ## every test; installs PostgreSQL from the distribution when there is none
	go test -timeout 20m ./...

.PHONY: race
race: plugins ## the tests of what runs concurrently, with the race detector
	CGO_ENABLED=1 go test -race -short -timeout 20m ./core/... ./protocols/...

.PHONY: mutations
mutations: ## change copies of an archive at 10,000 places; each change that can be read is reported (MUTATIONS=n)
	WEIR_MUTATIONS=$(or $(MUTATIONS),10000) go test -count 1 -timeout 60m -v -run '^TestMutations$$' ./core/archive

.PHONY: mixes
mixes: ## 10,000 random pipelines of good and refused statements, and 10,000 races with changes of the schema (MIXES, RACES)
	go test -count 1 -timeout 60m -v -run '^(TestPipelineMixes|TestAttackRaces)$$' ./protocols/postgres -mixes $(or $(MIXES),10000) -races $(or $(RACES),10000)

.PHONY: check
check: format vet lint vulnerabilities test race ## all that a change has to pass

.PHONY: format
format: ## fail when a file is not formatted
	@out=$$(go tool gofumpt -l .); if [ -n "$$out" ]; then echo "run: go tool gofumpt -w ."; echo "$$out"; exit 1; fi

.PHONY: vet
vet:
	go vet ./...

.PHONY: lint
lint: ## staticcheck
	go tool staticcheck ./...

.PHONY: vulnerabilities
vulnerabilities: ## govulncheck, where its database can be had
	@if out=$$(timeout 120 go tool govulncheck ./... 2>&1); then echo "$$out" | tail -1; \
	elif grep -q -E 'fetching vulnerabilities|dial tcp|no such host|HTTP GET|404|403' <<<"$$out"; then echo "govulncheck: its database cannot be reached; skipped"; \
	else echo "$$out"; exit 1; fi

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (default 30s)
	@for p in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$p 2>/dev/null | grep ^Fuzz); do \
		echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(or $(FUZZTIME),30s) $$p || exit 1; done; done

.PHONY: clean
clean: ## remove what make has built
	rm -rf bin .demo $(wildcard plugins/*/*.wasm) $(GUEST_FILES) $(wildcard sdk/*/examples/*/*.wasm)

.PHONY: bench
bench: bin/weir sdks ## what Weir costs beside a direct connection, pgbouncer and haproxy; writes BENCHMARKS.md
	@mkdir -p bin
	go build -o bin/bench ./protocols/postgres/bench
	bin/bench -weir bin/weir -o BENCHMARKS.md

.PHONY: conformance-postgres
conformance-postgres: bin/weir ## PostgreSQL's own regression suite, direct and through Weir; writes CONFORMANCE.md
	go build -o bin/conformance ./protocols/postgres/conformance
	bin/conformance -weir bin/weir -o protocols/postgres/CONFORMANCE.md

.PHONY: oracle-postgres
oracle-postgres: ## what PostgreSQL says that each statement of its suite does, against Weir's facts; writes ORACLE.md
	@mkdir -p bin
	go build -o bin/oracle ./protocols/postgres/oracle
	bin/oracle -o protocols/postgres/ORACLE.md

.PHONY: soak-postgres
soak-postgres: plugins ## a result of 10 GB through Weir: its memory must stay flat (RESULT=MB)
	go test -count=1 -v -timeout 60m -run '^TestSlowReader$$' ./protocols/postgres/limits -args -result $(or $(RESULT),10000)

.PHONY: idle-postgres
idle-postgres: plugins ## KiB of memory for each of 5,000 idle sessions (SESSIONS=n)
	go test -count=1 -v -timeout 60m -run '^TestIdleSessions$$' ./protocols/postgres/limits -args -sessions $(or $(SESSIONS),5000)

.PHONY: docs
docs: ## write the pages that are made from the source: policies/INPUT.md and RULES.md, core/gateway/openapi.json
	UPDATE=1 go test -count 1 -run '^TestPages$$' ./core/opa
	UPDATE=1 go test -count 1 -run '^TestOpenAPIFile$$' ./core/gateway
