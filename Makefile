# Everything that is checked before a change lands. `make help` lists the targets.
#
# Two profiles are compiled, and no third: `dev` for clippy, doc and every test (overflow checks and debug assertions
# are wanted there), `release` for the two programs that the end-to-end tests run, because those measure what ships.
# Every cargo command selects `--workspace`: with fewer packages cargo would unify features differently and compile the
# dependencies once more. Clippy and doc share their metadata, and build scripts with the tests.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:

# Modules of tests/it that need root and network namespaces. `check` leaves them out, `e2e` runs exactly them.
NETNS := alone:: bill:: bookinfo:: kernel:: traffic::
# Modules that need no root, but the release binaries that `build` makes.
RELEASE := agent:: demo:: smoke::

# In CI the lock file is law; at a desk a changed Cargo.toml may update it.
LOCKED := $(if $(CI),--locked)
STEP := .ci/step

.PHONY: help build static demo check test fmt clippy doc unit deny prepare e2e bench test-control-planes conformance
help:
	@echo 'make build    target/release/outrigger and target/release/iptables-init'
	@echo 'make static   iptables-init alone, without libraries, for an image'
	@echo 'make demo     a mesh on loopback, live, as an ordinary user; docs/demo.md. ARGS="--duration 30" and such'
	@echo 'make check    fmt, clippy, unit tests, supply chain, doc; needs neither root nor network namespaces'
	@echo 'make test     installs what the tests need, then check and the end-to-end tests; needs root'
	@echo 'make e2e      the end-to-end tests alone'
	@echo 'make test-control-planes    control planes of others drive outrigger, and Envoy beside it; needs Go'
	@echo 'make conformance    clients of others against outrigger, and Envoy beside it, into docs/conformance.md; needs Go'
	@echo 'make bench    outrigger beside Envoy, nginx and HAProxy into docs/performance.md, 15 minutes; one table: ARGS="--quick hop"'
	@echo 'make fmt | clippy | unit | deny | doc | prepare    one step'

build:
	@$(STEP) build cargo build $(LOCKED) --release --workspace

# The init program as it goes into an image: no libraries, so that it runs in any. musl where that target is installed.
static:
	@target=$$(rustc -vV | sed -n 's/^host: //p'); musl=$${target/-gnu/-musl}; \
	[ ! -d "$$(rustc --print sysroot)/lib/rustlib/$$musl" ] || target=$$musl; \
	RUSTFLAGS='-C target-feature=+crt-static' CARGO_PROFILE_RELEASE_STRIP=symbols \
	  cargo build $(LOCKED) --release --package iptables-init --target "$$target"; \
	program=$${CARGO_TARGET_DIR:-target}/$$target/release/iptables-init; ls -l "$$program"; \
	[ "$$(stat -c %s "$$program")" -le 3000000 ] || { echo "static: more than 3 MB" >&2; exit 1; }

# Not through STEP: the first build takes minutes, and cargo's own progress says so.
demo:
	@cargo build $(LOCKED) --release --workspace
	@exec "$${CARGO_TARGET_DIR:-target}/release/outrigger" demo $(ARGS)

# Cheapest first; what fails most often early.
check: fmt clippy unit deny doc

test: prepare check build e2e

fmt:
	@$(STEP) fmt cargo fmt --all --check

clippy:
	@$(STEP) clippy cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings

# Private items too: most of the proxy is `pub(crate)`, and a link between two of those must not rot either.
doc:
	@RUSTDOCFLAGS='-D warnings' $(STEP) doc cargo doc $(LOCKED) --workspace --no-deps --document-private-items

unit:
	@$(STEP) unit cargo test $(LOCKED) --workspace --lib --bins
	@$(STEP) integration cargo test $(LOCKED) --workspace --test '*' -- $(addprefix --skip=,$(NETNS) $(RELEASE))
	@$(STEP) doctest cargo test $(LOCKED) --workspace --doc

# The test reads deny.toml and needs no network; cargo-deny reads the same file where it is installed.
deny:
	@$(STEP) deny cargo test $(LOCKED) --workspace --test it -- supply_chain::
	@if command -v cargo-deny >/dev/null; then $(STEP) cargo-deny cargo deny --offline check bans licenses sources; fi

prepare:
	@$(STEP) prepare tests/prepare

# One after the other: they measure shares, deadlines and failures, and two at once on two cores disturb each other.
# A name in NETNS or RELEASE that matches no test is an error, not a pass.
e2e: build
	@for module in $(NETNS) $(RELEASE); do \
	  cargo test $(LOCKED) --workspace --quiet --test '*' -- --list "$$module" | grep ': test$$' >/dev/null \
	    || { echo "e2e: no test matches $$module (NETNS and RELEASE in the Makefile)" >&2; exit 1; }; \
	done
	@$(STEP) e2e .ci/again cargo test $(LOCKED) --workspace --no-fail-fast --test '*' -- --test-threads=1 $(NETNS) $(RELEASE)

# What it measures is what ships. It wants the machine for itself.
bench: build
	@$(STEP) bench-prepare benches/prepare
	@$(STEP) bench $${CARGO_TARGET_DIR:-target}/release/outrigger-bench $(ARGS)

# Not a part of `test`: the programs are downloaded and built for minutes. Envoy is what `prepare` installed.
conformance: build
	@tools=target/conformance; tests/conformance/install "$$tools"; \
	{ sed '/^| what/,$$d' docs/conformance.md; \
	  "$$tools"/venv/bin/python tests/conformance/run "$$tools" target/envoy-venv/lib/python3*/site-packages/envoy/_bin/envoy \
	    "$${CARGO_TARGET_DIR:-target}"/release/outrigger; } >"$$tools"/conformance.md; \
	cp "$$tools"/conformance.md docs/conformance.md

# Not a part of `test`, as above.
# Where Envoy Gateway's program is, or goes. Root, for the namespaces that Envoy Gateway runs in.
GATEWAY ?= $(CURDIR)/target/control-planes/bin
test-control-planes: build
	@[ -x "$(GATEWAY)"/envoy-gateway ] || GOBIN="$(GATEWAY)" $(STEP) 'build envoy-gateway' \
	  go install github.com/envoyproxy/gateway/cmd/envoy-gateway@v1.9.1
	@target=$${CARGO_TARGET_DIR:-target}; \
	for proxy in target/envoy-venv/lib/python3*/site-packages/envoy/_bin/envoy "$$target"/release/outrigger; do \
	  $(STEP) "go-control-plane $${proxy##*/}" tests/control-planes/go-control-plane/run "$$proxy" || exit; \
	  $(STEP) "envoy-gateway $${proxy##*/}" tests/control-planes/envoy-gateway/run "$$proxy" "$(GATEWAY)" || exit; \
	done
