# SPDX-License-Identifier: Apache-2.0
# What people do with Wisp; Meson does the building.
BUILD = build
PREFIX = /usr/local
ARGS =

help:
	@echo "make demo      set up, build, run an MPI job that moves, is saved and outlives a node"
	@echo "make build     build into $(BUILD)/"
	@echo "make check     everything that must pass: builds, unit, fuzz and functional tests, style"
	@echo "make soak      the long tests"
	@echo "make bench     measure, with figures for docs/performance.md"
	@echo "make install   install below PREFIX=$(PREFIX) (DESTDIR works)"
	@echo "make clean     remove what builds made (images and caches stay)"
	@echo
	@echo "ARGS=\"...\" goes to the demo, the benches and the tests. One test: tests/run NAME"

packages:
	@setup/install
packages-check:
	@setup/install check

$(BUILD)/build.ninja:
	meson setup --prefix=$(PREFIX) $(BUILD)
build: packages $(BUILD)/build.ninja
	ninja -C $(BUILD)

demo: build
	demo/run $(ARGS)
check: packages-check
	@tests/run $(ARGS)
soak: packages-check
	@tests/run build soak $(ARGS)
bench: packages build
	bench/run $(ARGS)
# As root after `make build` as yourself.
install: $(BUILD)/build.ninja
	$(if $(filter-out file,$(origin PREFIX)),meson configure --prefix=$(PREFIX) $(BUILD))
	meson install -C $(BUILD)
clean:
	rm -rf build build-* $(BUILD)

.PHONY: help packages packages-check build demo check soak bench install clean
