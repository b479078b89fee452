# Speediso: `make demo` shows it, `make test` proves it, `make help` lists the rest.
# Every target does its own set-up; nothing needs to be installed by hand but the Rust toolchain.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

export SPEEDISO_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/speediso
TARGET := target/x86_64-unknown-linux-musl
DEBUG := $(TARGET)/debug
RELEASE := $(TARGET)/release
IMAGES := target/images
CARGO_DENY := 0.20.2

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install what is missing (Debian packages, the musl target) and say why
	@./deps.sh

.PHONY: build
build: deps ## Build everything with the development profile (what demo and tests use)
	@echo "build: first time about 8 minutes on 2 cores, then seconds"
	@# With the tests' dependencies too: another choice of features would build most of them a second time.
	cargo build --workspace --all-targets

.PHONY: ramdisk
ramdisk: build ## The ramdisk for demo and tests: builds/latest, with the development agent
	$(DEBUG)/speediso-initramfs build --agent $(DEBUG)/speediso-agent --out builds --addon --workspace .

.PHONY: image
image: deps ## A ramdisk to deploy: release agent, numbered, last three kept (builds/). IMAGE="--sign KEY --manifest FILE ..."
	@echo "image: the release build takes about 10 minutes on 2 cores"
	cargo build --release -p speediso-agent -p speediso-initramfs
	$(RELEASE)/speediso-initramfs build --agent $(RELEASE)/speediso-agent --out builds --addon --iso --workspace . $(IMAGE)
	$(RELEASE)/speediso-initramfs list --out builds

.PHONY: image-aarch64
image-aarch64: deps ## The same for aarch64 machines, compiled here (builds/aarch64)
	./cross.sh aarch64 cargo build --release --target aarch64-unknown-linux-musl -p speediso-agent
	cargo build --release -p speediso-initramfs
	$(RELEASE)/speediso-initramfs build --arch aarch64 --agent target/aarch64-unknown-linux-musl/release/speediso-agent \
		--out builds/aarch64 --addon --workspace . $(IMAGE)

.PHONY: ramdisk-aarch64
ramdisk-aarch64: build
	./cross.sh aarch64 cargo build --target aarch64-unknown-linux-musl -p speediso-agent
	$(DEBUG)/speediso-initramfs build --arch aarch64 --agent target/aarch64-unknown-linux-musl/debug/speediso-agent \
		--out $(IMAGES)/aarch64 --workspace .

.PHONY: image-report
image-report: ## What costs size in the latest build: groups of modules, programs, libraries, the agent
	cargo build -p speediso-agent -p speediso-initramfs
	$(DEBUG)/speediso-initramfs report --out builds --symbols $(DEBUG)/speediso-agent

.PHONY: hardware-doc
hardware-doc: ## Write docs/hardware.md anew from the kernel package, the manifests and pci.ids
	cargo build -p speediso-initramfs
	$(DEBUG)/speediso-initramfs hardware --to docs/hardware.md

.PHONY: live
live: deps ## The live flavour for builds/latest: systemd, ssh and tools as a signed image in builds/latest/live (LIVE_ARGS)
	cargo build --release -p speediso-agent -p speediso-initramfs
	$(RELEASE)/speediso-initramfs live --agent $(RELEASE)/speediso-agent --out builds $(LIVE_ARGS)

.PHONY: rollback
rollback: ## Point builds/latest at the build before
	$(DEBUG)/speediso-initramfs rollback --out builds

.PHONY: demo
demo: ramdisk ## A bare virtual machine boots over PXE, enrols, is installed and logged into (FIRMWARE=uefi|bios, KEEP=1)
	$(DEBUG)/speediso-lab demo

.PHONY: lab
lab: ramdisk ## A small site with bare virtual machines to try things on, until Ctrl-C (MACHINES=2, FIRMWARE=uefi|bios|bios,uefi)
	$(DEBUG)/speediso-lab lab $(if $(PROXY),--proxy)

.PHONY: test
test: deps lint ramdisk ## All tests: unit, property, snapshot, loop devices (root), PXE boots in QEMU
	tests/images/tiny.sh $(IMAGES)/tiny.raw
	$(DEBUG)/speediso-initramfs live --agent $(DEBUG)/speediso-agent --manifest tests/boot/live/live.json \
		--to $(IMAGES)/live-squashfs --key $(IMAGES)/live.key
	cargo nextest run --workspace --no-fail-fast

.PHONY: test-quick
test-quick: deps ## Only what needs no virtual machine
	cargo nextest run --workspace --no-fail-fast -E 'not package(speediso-tests)'

.PHONY: test-all
test-all: test ramdisk-aarch64 ## Also the slow ones: tests that are left out of `make test`, the whole demo in UEFI and in BIOS mode
	@./deps.sh all
	cargo nextest run --workspace --no-fail-fast --run-ignored ignored-only
	FIRMWARE=uefi $(DEBUG)/speediso-lab demo
	FIRMWARE=bios $(DEBUG)/speediso-lab demo

.PHONY: fuzz
fuzz: deps ## Fuzz everything that reads bytes from outside, 60 s each (FUZZ_SECONDS); needs a nightly compiler
	fuzz/run.sh

.PHONY: lint
lint: deps ## Formatting, clippy, shell scripts, systemd units
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	shellcheck -x deps.sh cross.sh .ci/run fuzz/run.sh src/sys/*.sh tests/images/*.sh systemd/*.sh deploy/*.sh systemd/shells systemd/speediso-generator
	systemd/verify.sh

.PHONY: deny
deny: deps ## Licences, sources and forbidden crates of everything that is linked (installs cargo-deny)
	cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --version $(CARGO_DENY) --locked --quiet
	cargo deny check bans licenses sources

.PHONY: bench
bench: deps ## Size, memory, boot time, write speed against the usual pipes, in turn, as ratios; a hall that shares
	cargo build --release --workspace --bins
	$(RELEASE)/speediso-initramfs build --agent $(RELEASE)/speediso-agent --out builds
	$(RELEASE)/speediso-lab bench --agent $(RELEASE)/speediso-agent --builds builds
	$(RELEASE)/speediso-lab sharing

.PHONY: clean
clean: ## Remove what was built; the cache of packages and images stays
	rm -rf target builds
