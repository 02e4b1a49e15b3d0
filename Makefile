# `make` lists the targets. What runs here needs Rust (rustup), git and make; each target gets the rest for itself.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Tools that `make tools` builds live with the build, not on the machine.
TOOLS := $(CURDIR)/target/tools
export PATH := $(TOOLS)/bin:$(PATH)

CARGO_DENY := 0.20.2
CARGO_FUZZ := 0.13.2

# Integration tests start servers and measure deadlines: more at once than this and they measure each other. Each test
# mostly waits, so this is not the number of cores.
TEST_THREADS ?= 4

# Debian packages that a target needs and that are not there, by name of the list in dev/setup.
setup-%:
	@dev/setup $*

# Where the tests find etcd; a line of shell, for recipes that need it. In two steps: `eval "$(…)"` hides a failure.
ETCD_ENV = exports=$$(dev/etcd env); eval "$$exports"

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Its own build, for the first minutes in a checkout: seconds matter there, and neither speed nor Kubernetes does. Crates come
# while packages are installed, and etcd, from where it is quickest, while Tenure is built.
.PHONY: demo
demo: ## three candidates on a real etcd, live; DEMO_SECONDS=20 ends by itself
	@mkdir -p target; host=$$(rustc -vV | sed -n 's/^host: //p'); \
	$(CARGO) fetch --quiet --locked --target "$$host" 2>/dev/null & dev/setup build; wait; \
	dev/etcd quick >target/demo-etcd & etcd=$$!; \
	$(CARGO) build --locked --profile demo --no-default-features --bin tenure || { kill $$etcd; exit 1; }; \
	wait $$etcd; \
	ETCD_BIN="$$(<target/demo-etcd)/etcd" exec "$${CARGO_TARGET_DIR:-target}/demo/tenure" demo $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

# One binary for the image and all that tests/deploy runs: building it takes minutes. The flag is for the last
# crate alone, so its dependencies are those of any release build. What is released is built with musl (release.yml):
# a static glibc still looks for its name services when it runs, which an empty image does not have, but a host may.
.PHONY: release
release: setup-build ## the binary, static, without what it would ask of its host
	TENURE_REVISION=$$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown) \
	    $(CARGO) rustc --quiet --locked --release --bin tenure -- -C target-feature=+crt-static

IMAGE := target/image
.PHONY: image
image: setup-image release ## the container image with buildah, as an OCI archive, and its SBOM, into target/image
	dev/image "$${CARGO_TARGET_DIR:-target}/release/tenure" $(IMAGE)

.PHONY: check verify
check: setup-build ## the fast subset before a commit: format, clippy, all tests that need no etcd; changes nothing
	$(CARGO) fmt --check
	$(CARGO) clippy --quiet --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --quiet --locked --test chaos -- -D warnings
	$(CARGO) check --quiet --locked --no-default-features
	$(MAKE) --no-print-directory test-inside
verify: check

.PHONY: test
test: setup-test check test-it test-smoke test-http doc deny ## everything that CI holds a change to

.PHONY: test-full
test-full: setup-test check test-it-all doc deny ## as `test`, with all integration tests on each version of etcd

# What needs no etcd: unit tests, and of the integration binary the core on paper, the house rules, the command line and HTTP.
.PHONY: test-inside
test-inside: setup-build
	$(CARGO) test --locked --lib --bins
	$(CARGO) test --locked --test it -- tidy:: transcripts:: fuzz:: cli_ http_ chaos_ --skip cli_doctor
	$(CARGO) test --locked -p tenure-prove --profile prove --test prove -- --nocapture
	$(CARGO) test --locked --doc

.PHONY: test-it
test-it: setup-build ## integration tests on etcd 3.7; TEST=name runs those that match
	$(ETCD_ENV); $(CARGO) test --locked --test it $(TEST) -- --test-threads $(TEST_THREADS)

.PHONY: test-smoke
test-smoke: setup-build ## the smoke set on etcd 3.4, 3.5 and 3.6
	$(ETCD_ENV); for series in 3.4 3.5 3.6; do \
	    echo "smoke set on etcd $$series"; \
	    TENURE_TEST_ETCD=$$series $(CARGO) test --locked --test it smoke:: -- --test-threads $(TEST_THREADS); \
	done

.PHONY: test-it-all
test-it-all: setup-build
	$(ETCD_ENV); for series in 3.4 3.5 3.6 3.7; do \
	    echo "integration tests on etcd $$series"; \
	    TENURE_TEST_ETCD=$$series $(CARGO) test --locked --test it -- --test-threads $(TEST_THREADS); \
	done

# The short form of `fuzz-http`.
.PHONY: test-http
test-http:
	@$(MAKE) --no-print-directory fuzz-http SECONDS=15

.PHONY: model
model: setup-build ## the model check in full: every choice of two faults, and the mutants that take two (under 10 minutes)
	MODEL=full $(CARGO) test --locked -p tenure-prove --profile prove --test prove -- model:: --nocapture --test-threads 1

.PHONY: sim
sim: setup-build ## the seeded simulation of the core; SEEDS=100000, SIM_SEED=5 replays one, SIM_PLAN=file a plan, SIM_MUTANT=name breaks a rule
	SIM_SEEDS=$(or $(SEEDS),100000) $(CARGO) test --locked -p tenure-prove --profile prove --test prove -- sim:: --nocapture

.PHONY: rounds
rounds: setup-build ## ROUNDS=200 random rounds of resign, SIGTERM, kill -9, SIGSTOP, key deleted, lease revoked
	$(ETCD_ENV); ROUNDS=$(or $(ROUNDS),200) $(CARGO) test --locked --test it -- rounds:: --nocapture

# It makes network namespaces, mounts loop devices, and sets the wall clock by seconds, for seconds. The history of a run
# that fails stays, and its place is printed; HISTORY=dir keeps it in any case.
.PHONY: chaos
chaos: setup-chaos ## as root: all is attacked for MINUTES=30, and the history checked; SEED=, HISTORY=dir, FAULTS=restore,auth
	$(ETCD_ENV); $(CARGO) test --locked --test chaos -- run --minutes $(or $(MINUTES),30) \
	    $(if $(SEED),--seed $(SEED)) $(if $(HISTORY),--history $(HISTORY)) $(if $(FAULTS),--only $(FAULTS))

.PHONY: chaos-check
chaos-check: setup-build ## checks a history again that was kept; HISTORY=dir
	$(CARGO) test --locked --test chaos -- check --history $(HISTORY)

.PHONY: figures
figures: setup-build ## fail-over and hand-over latencies, and 30 s with a silent member: long enough to quote
	$(ETCD_ENV); export TENURE_TEST_LONG=1; \
	$(CARGO) test --locked --release --test it -- handing_over:: --nocapture --test-threads 1; \
	$(CARGO) test --locked --release --test it -- members:: --nocapture

# `--sanitizer none`: there is no unsafe code to sanitize, and without it a stable compiler will do.
FUZZ_TARGETS := config etcd_values election headers http
FUZZ_FLAGS := --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none

.PHONY: fuzz
fuzz: setup-build cargo-fuzz ## coverage-guided fuzzing of each target; SECONDS=60, FUZZ_TARGETS="config http"
	@for target in $(FUZZ_TARGETS); do \
	    echo "fuzzing $$target"; mkdir -p "target/fuzz/found/$$target" target/fuzz/crashes; \
	    TMPDIR=$(CURDIR)/target/fuzz $(CARGO) fuzz run $(FUZZ_FLAGS) "$$target" "target/fuzz/found/$$target" \
	        "tests/fuzz/corpus/$$target" -- -max_total_time=$(or $(SECONDS),60) -timeout=10 -print_final_stats=1 \
	        -verbosity=0 -artifact_prefix="$(CURDIR)/target/fuzz/crashes/$$target-" </dev/null; \
	done

# Not into the committed corpora themselves: those are to stay small, so somebody chooses.
.PHONY: fuzz-corpus
fuzz-corpus: setup-build cargo-fuzz ## the fewest inputs that reach what `make fuzz` reached, into target/fuzz/corpus
	@for target in $(FUZZ_TARGETS); do \
	    rm -rf "target/fuzz/corpus/$$target"; mkdir -p "target/fuzz/corpus/$$target" "target/fuzz/found/$$target"; \
	    TMPDIR=$(CURDIR)/target/fuzz $(CARGO) fuzz run $(FUZZ_FLAGS) "$$target" "target/fuzz/corpus/$$target" \
	        "tests/fuzz/corpus/$$target" "target/fuzz/found/$$target" -- -set_cover_merge=1 -use_counters=0 </dev/null; \
	done

.PHONY: fuzz-http
fuzz-http: setup-test schemathesis ## requests made up from /openapi.json against real daemons; SECONDS=60 for each of three
	@SCHEMATHESIS=$(SCHEMATHESIS)/bin/schemathesis FUZZ_HTTP_SECONDS=$(or $(SECONDS),60) dev/fuzz-http

# Go programs that only tests use, each a module of its own with its versions and checksums; and the tests' Python.
DEPLOY_GO_TOOLS := $(notdir $(patsubst %/go.mod,%,$(wildcard tests/deploy/tools/*/go.mod)))
DEPLOY_PYTHON := $(TOOLS)/deploy

.PHONY: test-deploy
test-deploy: setup-deploy release deploy-tools ## charts, manifests, images, units, proxies, rules and dashboards, with the real tools; TEST=name
	TENURE_BIN=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release/tenure PATH=$(DEPLOY_PYTHON)/bin:$$PATH \
	    PYTHONDONTWRITEBYTECODE=1 $(DEPLOY_PYTHON)/bin/pytest -c tests/deploy/pytest.ini tests/deploy \
	    --durations=10 $(if $(TEST),-k '$(TEST)')

.PHONY: deploy-tools
deploy-tools: setup-build $(DEPLOY_GO_TOOLS:%=$(TOOLS)/bin/%) deploy-python

$(TOOLS)/bin/%: tests/deploy/tools/%/go.mod tests/deploy/tools/%/go.sum
	@echo 'building $*, once' >&2
	@go=$$(dev/go); export PATH="$$go:$$PATH"; mkdir -p $(TOOLS)/bin; cd tests/deploy/tools/$* && GOFLAGS=-mod=readonly CGO_ENABLED=0 \
	    go build -trimpath -ldflags '-s -w' -o $@ $$(sed -n 's/^tool //p' go.mod)
	@touch $@

.PHONY: deploy-python
deploy-python:
	@dev/venv $(DEPLOY_PYTHON) tests/deploy/requirements.txt

.PHONY: test-first-mile
test-first-mile: ## as root: a new Debian 12 with Rust, git and make alone has to clone, `make demo` and `make test`; FOR="demo setup"
	dev/first-mile $(FOR)

.PHONY: doc
doc: setup-build ## the documentation, with warnings as errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --quiet

# Advisories need a fresh database from the network, so they are a target of their own: a build must not turn red on a
# day when nothing here changed.
.PHONY: deny
deny: cargo-deny ## licences, duplicates and sources of the dependencies
	$(CARGO) deny --locked check bans licenses sources

.PHONY: audit
audit: cargo-deny ## known vulnerabilities of the dependencies; needs the RustSec database (github.com)
	$(CARGO) deny --locked check advisories

.PHONY: footprint
footprint: setup-test ## memory, CPU, raft proposals when idle, and the size of the binary
	dev/footprint

.PHONY: fmt
fmt: ## format the code
	$(CARGO) fmt

.PHONY: etcd
etcd: ## find or make etcd 3.4, 3.5, 3.6 and 3.7 for the tests
	dev/etcd env >/dev/null

.PHONY: tools
tools: cargo-deny cargo-fuzz schemathesis etcd ## everything that the other targets need

# Built for use here, not for speed: a minute and a half on two cores instead of several. Without its default features
# it needs no C libraries.
.PHONY: cargo-deny
cargo-deny: setup-build
	@[[ $$(cargo-deny --version 2>/dev/null) == 'cargo-deny $(CARGO_DENY)' ]] || { \
	    echo 'building cargo-deny $(CARGO_DENY), once' >&2; \
	    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	    CARGO_TARGET_DIR=$(TOOLS)/build $(CARGO) install --quiet --locked --no-default-features --root $(TOOLS) \
	        cargo-deny@$(CARGO_DENY); rm -rf $(TOOLS)/build; }

.PHONY: cargo-fuzz
cargo-fuzz: setup-build
	@[[ $$(cargo-fuzz --version 2>/dev/null) == 'cargo-fuzz $(CARGO_FUZZ)' ]] || { \
	    echo 'building cargo-fuzz $(CARGO_FUZZ), once' >&2; \
	    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	    CARGO_TARGET_DIR=$(TOOLS)/build $(CARGO) install --quiet --locked --root $(TOOLS) cargo-fuzz@$(CARGO_FUZZ); \
	    rm -rf $(TOOLS)/build; }

SCHEMATHESIS := $(TOOLS)/schemathesis
.PHONY: schemathesis
schemathesis:
	@dev/venv $(SCHEMATHESIS) tests/fuzz/requirements.txt
