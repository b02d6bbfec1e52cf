#!/usr/bin/env bash
# The arm64 build, its programs and its tests run by user-mode emulation. Left out there: what needs
# system calls that qemu-user does not have (the log uses kernel AIO; a test that starts itself is no program of the
# machine; giving memory back is a hint to it: the
# balloon on the boards shows that) or is about native speed.
set -eu
cd "$(dirname "$0")/.."
packaging/arm64-sysroot.sh build/arm64-sysroot
cmake --preset arm64
cmake --build --preset arm64 -- --quiet
cmake --build --preset arm64 --target board-programs -- --quiet
ctest --preset arm64 -E 'engine|sim|torture|hv_memory|test_vm_process|test_host' -j 2
for program in witnessd witnessctl witness-agent witness-vm; do
	qemu-aarch64 -L build/arm64-sysroot "build/arm64/bin/$program" --version
done
