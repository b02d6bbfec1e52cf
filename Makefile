# Two commands matter: `make demo` shows the witness at work, `make test` passes every test.
# Each installs what it needs (packaging/dependencies) on a fresh Debian 12. `make help` lists all.
PRESET ?= dev
JOBS ?= $(shell nproc)

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

deps: ## install the Debian packages that are missing
	@packaging/install-dependencies.sh

build: deps ## compile with gcc, warnings as errors
	@echo "== building ($(PRESET))"
	@cmake --preset $(PRESET) >/dev/null
	@cmake --build --preset $(PRESET) -j $(JOBS) -- --quiet

demo: build ## three boards on this machine: sites, a split, a leader killed
	@python3 tests/e2e/demo.py build/$(PRESET)/bin

test: deps ## every test that CI runs (about 25 minutes on two cores)
	@tests/run.sh

bench: deps ## side by side with corosync-qnetd; writes docs/BENCHMARKS.md (about five minutes)
	@cmake --preset bench >/dev/null && cmake --build --preset bench -j $(JOBS) --target witnessd witnessctl qnet_load put_load -- --quiet
	@python3 tests/bench/run.py build/bench/bin --keep --sizes 100,500 --clear-sizes 100,1000

scale: deps ## ten thousand sites on three boards of this machine (about ten minutes)
	@cmake --preset bench >/dev/null && cmake --build --preset bench -j $(JOBS) --target witnessd witnessctl qnet_load put_load -- --quiet
	@python3 tests/bench/scale.py build/bench/bin --keep

bench-etcd: deps ## durable writes side by side with etcd (about four minutes)
	@cmake --preset bench >/dev/null && cmake --build --preset bench -j $(JOBS) --target witnessd witnessctl qnet_load put_load -- --quiet
	@python3 tests/bench/etcd.py build/bench/bin --keep

sim: build ## 100,000 runs of the seeded simulator (about ten minutes)
	@build/$(PRESET)/tests/sim/sim --runs 100000

sim-vms: build ## the same for virtual machines: never two of one, none without a lease
	@build/$(PRESET)/tests/sim/sim --vms --runs 100000

bench-arm64: deps ## the same beside corosync-qnetd in an emulated Arm board, as ratios (about twenty minutes)
	@packaging/arm64-sysroot.sh build/arm64-sysroot
	@cmake --preset arm64 >/dev/null && cmake --build --preset arm64 -j $(JOBS) --target witnessd witnessctl \
		witness-agent qnet_load -- --quiet
	@python3 tests/bench/arm64.py build/arm64/bin --keep

soak: build ## an hour of everything at random: 2,000 sites, boards killed, cut off, frozen, slowed
	@python3 tests/e2e/soak.py build/$(PRESET)/bin

placement: build ## virtual machines on three boards of this machine: lost, frozen, drained, never twice (two minutes)
	@python3 tests/e2e/test_placement.py build/$(PRESET)/bin --long

years: build ## all that befalls a cluster: upgrade, lost majority, renewals, alarms (about six minutes)
	@python3 tests/e2e/test_years.py build/$(PRESET)/bin --long

torture: build ## boards killed and restarted 100 times under load
	@python3 tests/e2e/torture.py build/$(PRESET)/bin --kills 100

two-sides: deps ## real corosync nodes with corosync-qnetd: the checker finds its two sides
	@python3 tests/e2e/test_corosync.py --qnetd

fuzz: deps ## each fuzzer for ten minutes
	@tests/fuzz/run.sh 600

board: deps ## a command on an emulated Arm board with KVM: make board ARGS="-- uname -a" (tests/boards/README.md)
	@tests/boards/board $(ARGS)

boards: deps ## our VM host on emulated Arm boards: every check of tests/boards
	@packaging/arm64-sysroot.sh build/arm64-sysroot
	@cmake --preset arm64 >/dev/null && cmake --build --preset arm64 -j $(JOBS) --target board-programs witnessd witnessctl -- --quiet
	@DEB_BUILD_OPTIONS=parallel=$(JOBS) packaging/build.sh build/packages arm64
	@tests/boards/run.sh build/arm64/bin

demo-vm: deps ## three emulated Arm boards host two virtual machines; the plug of one board is pulled (five minutes)
	@DEB_BUILD_OPTIONS=parallel=$(JOBS) packaging/build.sh build/packages arm64
	@python3 tests/boards/demo_vm.py

never-twice: deps ## what befalls three emulated boards: never two of one virtual machine (ARGS="--slow 4" on a busy machine)
	@DEB_BUILD_OPTIONS=parallel=$(JOBS) packaging/build.sh build/packages arm64
	@python3 tests/boards/never_twice.py $(ARGS)

vms-soak: deps ## 24 virtual machines on three emulated boards, for ten minutes all that can be done to them
	@DEB_BUILD_OPTIONS=parallel=$(JOBS) packaging/build.sh build/packages arm64
	@python3 tests/boards/vms_soak.py $(ARGS)

virtual-boards: deps ## three emulated Arm boards with Debian and our packages form a cluster; says how to use them
	@DEB_BUILD_OPTIONS=parallel=$(JOBS) packaging/build.sh build/packages arm64
	@python3 tests/boards/cluster.py up

bench-hv: deps ## our VM host beside QEMU on one emulated board; writes docs/BENCHMARKS-hv.md (five minutes and the small kernel)
	@packaging/arm64-sysroot.sh build/arm64-sysroot
	@cmake --preset arm64 >/dev/null && cmake --build --preset arm64 -j $(JOBS) --target witness-vm floor -- --quiet
	@python3 tests/bench/hv.py build/arm64/bin docs/BENCHMARKS-hv.md

small-kernel: deps ## the small purpose-built kernel, kept in the cache (about fifteen minutes, once)
	@tests/boards/board --prepare -G small

packages: deps ## Debian packages for amd64 and arm64, looked at by lintian, into build/packages
	@DEB_BUILD_OPTIONS=parallel=$(JOBS) packaging/build.sh build/packages amd64 arm64

install: ## install into DESTDIR (packagers)
	@cmake --preset release >/dev/null && cmake --build --preset release -j $(JOBS)
	@cmake --install build/release --prefix $(DESTDIR)/usr

clean: ## remove everything that was built
	rm -rf build

.PHONY: help deps build demo test bench scale bench-etcd sim sim-vms bench-arm64 soak placement years torture \
	two-sides fuzz board boards demo-vm never-twice vms-soak virtual-boards bench-hv small-kernel packages install clean
