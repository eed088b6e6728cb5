# The two commands that a newcomer needs are `make demo` and `make test`. Both begin with `setup`,
# which installs what is missing, after saying so, and is silent when nothing is.

# As root, cargo may lie where rustup put it and the shell does not look.
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help setup build test demo bench

help:
	@echo 'make demo    a cluster on this machine that loses its primary and repairs itself'
	@echo 'make test    everything that CI runs'
	@echo 'make build   the release binary, target/release/standfast'
	@echo 'make bench   faults with figures, as a table and as JSON'

setup:
	@scripts/setup.sh

# The commands below look for the binary here, wherever else a user's cargo builds.
build: setup
	@cargo build --release --locked --package standfast --target-dir target

# ARGS=--keep leaves the cluster running.
demo: build
	@scripts/demo.sh target/release/standfast $(ARGS)

bench: build
	@target/release/standfast bench failover $(ARGS)

test: setup
	@cargo xtask ci
