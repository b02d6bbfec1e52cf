#!/usr/bin/env python3
"""`arm64.py BIN [--keep]`: run.py, small, inside one emulated Arm board (tests/boards): the boards' programs for arm64
beside Debian's arm64 corosync-qnetd. The board's clock counts instructions, so that
what else this machine does is not seen in it; its seconds are nobody's, so only ratios are told, and the memory of a
session and of the agent, which an emulator does not change. All files are in memory: while a disk of this machine
works, such a clock runs on by itself."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import report
from boards import Failure

PROGRAMS = ("witnessd", "witnessctl", "witness-agent", "qnet_load")
PACKAGES = ("python3-minimal", "corosync-qnetd", "libnss3-tools", "openssl", "curl", "libuv1", "libssl3",
            "libsqlite3-0", "libraft2", "libprotobuf-c1", "libjansson4", "libcurl4", "libsmartcols1", "libmbedtls14",
            "python3", "coreutils", "iproute2")
LIMIT_S = 5400

SCRIPT = """
set -e
PATH=/usr/bin:/usr/sbin:/bin:/sbin
mkdir -p /w && mount -t tmpfs -o size=1500m bench /w
mkdir -p /w/tests && cp -r /bench/* /w/tests/ && mkdir -p /w/bin && cp /programs/* /w/bin/
mkdir -p /tmp /var/run /var/lib && ip link set lo up
cd /w && TMPDIR=/w python3 tests/bench/run.py /w/bin --sizes {sizes} --clear-sizes {clear} --limit 120 --in-memory --result /out/arm64.json
python3 tests/bench/agent_memory.py /w/bin /out/agent.json
"""


def measure(given):
    with tempfile.TemporaryDirectory(prefix="tiebreak.") as directory:
        programs, bench, out = (os.path.join(directory, name) for name in ("programs", "bench", "out"))
        os.makedirs(programs)
        os.makedirs(bench)
        for name in PROGRAMS:
            subprocess.run(["cp", os.path.join(given.bin, name), programs], check=True)
        for name in ("bench", "e2e"):
            subprocess.run(["cp", "-r", os.path.join(HERE, "..", name), bench], check=True)
        command = [os.path.join(HERE, "..", "boards", "board"), "-m", "3072", "-s", "1", "-I", "-t", str(LIMIT_S),
                   # NSS looks no address up on a machine that has none but loopback's.
                   "-l", f"{20000 + os.getpid() % 10000}:1:10.9.0.1/24", "-d", f"{programs}:/programs", "-d", f"{bench}:/bench", "-o", out]
        for package in PACKAGES:
            command += ["-p", package]
        done = subprocess.run([*command, "--", "sh", "-c", SCRIPT.format(sizes=given.sizes, clear=given.clear_sizes)], check=False)
        if done.returncode != 0:
            raise Failure(f"the run on the board ended with {done.returncode}")
        result = {}
        for name in ("arm64", "agent"):
            with open(os.path.join(out, f"{name}.json")) as file:
                result[name] = json.load(file)
        return {**result["arm64"], "agent": result["agent"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin", help="programs for arm64")
    parser.add_argument("--keep", action="store_true", help="in docs/benchmarks, and write docs/BENCHMARKS.md")
    parser.add_argument("--sizes", default="50", help="sites over TLS, separated by commas")
    parser.add_argument("--clear-sizes", default="50,500", help="sites in the clear")
    given = parser.parse_args()
    began, load = time.monotonic(), os.getloadavg()[0]
    result = {**measure(given), **report.machine(load), "seconds": time.monotonic() - began}
    if given.keep:
        report.keep("arm64.json", result)
    print(report.markdown(report.arm64_rows(result)))


if __name__ == "__main__":
    main()
