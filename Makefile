# Every target that people use carries a ## comment; `make` prints them.
# Each works in a fresh clone on Debian 12 with Go and installs or names what it lacks.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help run deps build install deb test vet unit scripts gate ui check fmt fmt-check lint staticcheck vulncheck \
	bench bench-full bench-forward bench-inputs bench-blocks bench-restore bench-codec crash forward fuzz peers docs docs-check clean

# What the build needs beyond Go. librocksdb-dev brings the compression libraries.
PACKAGES := gcc g++ librocksdb-dev

# The version is read from git here, since stamping by the go command fails in
# checkouts that belong to another user.
VERSION  := $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//' || true)
VERSION  := $(or $(VERSION),0.1.0-dev)
REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BRANCH   := $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null || echo unknown)
DATE     := $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
STAMP    := github.com/prometheus/common/version
LDFLAGS  := -X $(STAMP).Version=$(VERSION) -X $(STAMP).Revision=$(REVISION) -X $(STAMP).Branch=$(BRANCH) -X $(STAMP).BuildDate=$(DATE)

export GOFLAGS += -buildvcs=false

# Packages tested at once. Most tests use a core and a disk, so more than the
# cores at hand only makes their deadlines tighter: three on two cores gained nothing.
PARALLEL ?= $(shell nproc 2>/dev/null || echo 2)

# Linters are pinned in a module of their own, so that the product's go.mod stays
# free of them and a second run needs no network.
TOOL := go tool -modfile=tools/go.mod

help: ## Print this list.
	@echo "Varve: a long-term archive for Prometheus metrics."
	@echo
	@awk 'BEGIN { FS = ":[^#]*## " } /^[a-z][a-z0-9-]*:.* ## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: build ## Install what is missing, build, and serve: data in ./data, port 9095. ARGS adds flags.
	@exec ./bin/varve serve $(ARGS)

deps: ## Install the C++ compiler and RocksDB if they are missing (apt-get, with sudo unless root).
	@if ! command -v go >/dev/null; then \
		echo "make: there is no 'go' on the PATH. Install Go 1.26 or later, then run this again." >&2; exit 1; \
	fi; \
	if printf '#include <rocksdb/c.h>\n#include <zstd.h>\n#include <lz4.h>\n#include <snappy-c.h>\n#include <zlib.h>\n' \
		| c++ -x c++ -E - >/dev/null 2>&1; then exit 0; fi; \
	echo "make: a C++ compiler or the headers of RocksDB are missing, installing: $(PACKAGES)"; \
	if ! command -v apt-get >/dev/null; then \
		echo "make: this is no Debian. Install a C++ compiler and RocksDB 7.8 with headers, then run this again." >&2; exit 1; \
	fi; \
	as_root=; \
	if [ "$$(id -u)" != 0 ]; then \
		if ! command -v sudo >/dev/null; then \
			echo "make: installing needs root and there is no sudo. As root, run: apt-get update && apt-get install $(PACKAGES)" >&2; exit 1; \
		fi; \
		as_root=sudo; \
	fi; \
	if ! { $$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends $(PACKAGES); }; then \
		echo "make: apt-get failed, see above. Install $(PACKAGES) by hand, then run this again." >&2; exit 1; \
	fi

build: deps ## Build ./bin/varve.
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/varve ./cmd/varve

PREFIX ?= /usr/local
SHARE = $(DESTDIR)$(PREFIX)/share
install: build ## Install the binary, manual page, completions and unit below PREFIX (/usr/local).
	install -D -m 0755 bin/varve $(DESTDIR)$(PREFIX)/bin/varve
	@mkdir -p $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d $(DESTDIR)$(PREFIX)/lib/systemd/system
	bin/varve --help-man > $(SHARE)/man/man1/varve.1
	bin/varve --completion-script-bash > $(SHARE)/bash-completion/completions/varve
	bin/varve --completion-script-zsh > $(SHARE)/zsh/site-functions/_varve
	bin/varve --completion-script-fish > $(SHARE)/fish/vendor_completions.d/varve.fish
	sed 's|/usr/bin/varve|$(PREFIX)/bin/varve|g' packaging/systemd/varve.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/varve.service

deb: build ## Make the Debian package in ./bin. DEB_COMPRESSION=gzip is quicker than xz.
	./packaging/debian/build bin/varve bin

test: vet unit scripts gate ## Run everything that a change must pass: vet, tests with the race detector, the gates' smoke share.

# Upstream's iterators have a Seek that is not io.Seeker's, which vet takes for a slip. With -race it needs the packages
# that the tests need, so that nothing is compiled for it alone.
vet: deps ## Run go vet.
	go vet -race -stdmethods=false ./...

unit: deps ## Run the tests beside the code, house rules included, with the race detector.
	go test -race -p $(PARALLEL) -timeout 20m $$(go list ./... | grep -v '/internal/gate')

# The race detector makes these ten times as slow, so that only some files of them run with it.
scripts: deps ## Run all of upstream's PromQL scripts, without the race detector.
	go test -p $(PARALLEL) -timeout 20m -run Scripts ./archive ./query

# The gates drive the built program as a black box: the go command cannot know that
# it changed, hence -count=1. Two at a time, which wait for programs and disks half of the time: first those that are light
# on the machine, then those that load it. The latter go without the race detector, which would see the harness alone, twice as slow:
# Varve is another process, and its own tests run with it.
GATE := VARVE_BINARY=$(CURDIR)/bin/varve go test -count=1 -v -timeout 20m -p 2
GATES_HEAVY := ./internal/gate/crash ./internal/gate/differential ./internal/gate/disk ./internal/gate/forwarding ./benchmarks
gate: build ## Run the gates: kill -9, full disk, side by side with Prometheus, the page in a browser. GATE_STRICT=1 forbids skips.
	$(GATE) -race $$(go list ./internal/gate/... | grep -v -e /crash$$ -e /differential$$ -e /disk$$ -e /forwarding$$)
	$(GATE) $(GATES_HEAVY)

check: fmt-check vet lint staticcheck docs-check vulncheck ## Run the linters: gofmt, vet, house rules, staticcheck, documents, govulncheck.

ui: ## Check and build the page anew, with Node.js 20 or later: api/ui/dist, which is committed, so that Go alone builds Varve.
	@command -v npm >/dev/null || { echo "make: there is no 'npm' on the PATH. Install Node.js 20.19 or later, then run this again." >&2; exit 1; }
	cd api/ui/app && npm ci --no-audit --no-fund && npm run check && npm run build && npm run weigh

fmt: ## Format the Go code.
	gofmt -w $$(git ls-files -co --exclude-standard '*.go')

fmt-check: ## Name the Go files that are not formatted.
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:" >&2; echo "$$unformatted" >&2; exit 1; fi

lint: deps ## Test the house rules.
	go test -count=1 ./internal/lint

staticcheck: deps ## Run staticcheck.
	$(TOOL) staticcheck ./...

# The list of known vulnerabilities comes from the network. Without it there is
# nothing to compare with, which is no fault of the code: said aloud, not failed.
vulncheck: deps ## Compare with the Go vulnerability database, where it can be reached.
	@output=$$($(TOOL) govulncheck ./... 2>&1) && { echo "$$output"; exit 0; }; \
	status=$$?; echo "$$output"; \
	if grep -q 'fetching vulnerabilities' <<<"$$output"; then \
		echo "##########################################################################" >&2; \
		echo "## NOT CHECKED FOR VULNERABILITIES: the database could not be reached.  ##" >&2; \
		echo "## Run 'make vulncheck' again with network access before a release.     ##" >&2; \
		echo "##########################################################################" >&2; \
		exit 0; \
	fi; \
	exit $$status

bench: build ## Run short benchmarks side by side with peers, a few minutes. PEERS and ARGS choose, see benchmarks/README.md.
	VARVE_BINARY=$(CURDIR)/bin/varve go run ./benchmarks --size=short $(ARGS)

bench-full: build ## Run all benchmarks at full size: hours, of them up to 96 minutes for recordings if none are kept.
	VARVE_BINARY=$(CURDIR)/bin/varve go run ./benchmarks --size=full $(ARGS)

bench-forward: build ## Run the benchmarks of outputs and of writes beside the compactor, SIZE=short (8 min) or full (40 min). Varve alone.
	VARVE_BINARY=$(CURDIR)/bin/varve go run ./benchmarks --peers=varve --size=$(or $(SIZE),short) $(ARGS) forward
	VARVE_BINARY=$(CURDIR)/bin/varve go run ./benchmarks --peers=varve --size=$(or $(SIZE),short) $(ARGS) pass

bench-inputs: build ## Run the benchmark of inputs beside VictoriaMetrics, InfluxDB and Prometheus 3, SIZE=short (7 min) or full (40 min). ARGS=--inputs-parts=influx,nats chooses.
	VARVE_BINARY=$(CURDIR)/bin/varve go run ./benchmarks --size=$(or $(SIZE),short) $(ARGS) inputs

bench-blocks: build ## Run the benchmarks of imported blocks, beside VictoriaMetrics, and of snapshots, SIZE=short (9 min) or full (1 h).
	VARVE_BINARY=$(CURDIR)/bin/varve go run ./benchmarks --peers=varve,victoriametrics --size=$(or $(SIZE),short) $(ARGS) blocks
	VARVE_BINARY=$(CURDIR)/bin/varve go run ./benchmarks --peers=varve --size=$(or $(SIZE),short) $(ARGS) snapshots

bench-restore: deps ## Make, verify and restore a snapshot of GB (10) gigabytes in a folder of the same disk; takes room for two such archives and a quarter of an hour.
	VARVE_GB=$(or $(GB),10) go test ./snapshot -run "^$$" -bench "^BenchmarkLarge$$" -benchtime 1x -timeout 2h -v

bench-codec: deps ## Run the codec over recorded exporters six times, beside XOR chunks. Uses benchstat if it is there.
	go test ./benchmarks/codec -run '^$$' -bench Recorded -count 6 | if command -v benchstat >/dev/null; then benchstat /dev/stdin; else cat; fi

# A cycle takes a few seconds; the limit leaves each twenty-five.
N ?= 30
crash: build ## Kill the server N times (30) under load, and N times at the compactor's jobs, cut the power N/4 times, and check that nothing acknowledged is lost.
	VARVE_BINARY=$(CURDIR)/bin/varve CRASH_CYCLES=$(N) go test ./internal/gate/crash -run '^(TestCrash|TestCrashCompactor|TestPowerCut)$$' \
		-count=1 -v -timeout $$(( $(N) * 40 + 900 ))s

forward: build ## Kill the server N times (30), and cut its power as often, while it forwards to targets that come and go, and check that they have all of it.
	VARVE_BINARY=$(CURDIR)/bin/varve FORWARD_CYCLES=$(N) go test ./internal/gate/forwarding -run '^(TestKilled|TestPowerCut)$$' \
		-count=1 -v -timeout $$(( $(N) * 25 + 900 ))s

FUZZTIME ?= 20s
fuzz: deps ## Run every fuzz target for FUZZTIME (20s).
	@grep -rEho --include='*_test.go' --exclude-dir=testdata '^func Fuzz\w*' . >/dev/null || { echo "there is no fuzz target" >&2; exit 1; }; \
	grep -rEo --include='*_test.go' --exclude-dir=testdata '^func Fuzz\w*' . | sort | while IFS=: read -r file func; do \
		name=$${func#func }; \
		echo "== $$name in $$(dirname "$$file") for $(FUZZTIME)"; \
		go test "$$(dirname "$$file")" -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) </dev/null; \
	done

peers: deps ## Build Prometheus 3 and InfluxDB 1.8, that Varve is compared with: minutes, once a machine.
	./internal/gate/peers/build.sh

docs: build ## Generate the configuration and flag references from the program.
	./docs/generate ./bin/varve docs
	./docs/changelog

docs-check: build ## Fail if the generated references are not what the program says.
	./docs/changelog --check
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	./docs/generate ./bin/varve "$$dir"; \
	for page in "$$dir"/*.md; do \
		diff -u "docs/$$(basename "$$page")" "$$page" || { echo "docs/$$(basename "$$page") is not what the program says, run make docs" >&2; exit 1; }; \
	done

clean: ## Remove what was built. ./data stays.
	rm -rf bin
