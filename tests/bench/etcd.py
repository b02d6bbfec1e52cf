#!/usr/bin/env python3
"""`etcd.py BIN [--keep]`: three boards of this witness beside three members of Debian's etcd, on one machine, one
after the other, with one client (put_load): durable writes of 200 bytes over HTTPS with 1, 16 and 256
outstanding, memory of a member, and what is written to the disk while nothing happens.

Ours changes the labels of a site (checked, replicated, applied to the model, with an event for the audit); etcd
puts a value by its JSON gateway. No time is asserted; a status other than 0 means that the run failed or that a
board wrote while nothing happened."""

import argparse
import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import report
from boards import Cluster, Failure, die_with_parent, wait_for
from load import cpu_s, import_sites, rss_kib, run_quiet
from run import disk_directory, file_times, say, wait_for_quiet, written_bytes

OUTSTANDING = (1, 16, 256)
WRITES = {1: 300, 16: 3000, 256: 10000}
SITES = 256  # a worker of the client writes to a site of its own
BYTES = 200


def put_load(binaries, url, outstanding, count, method, body, cacert, headers=()):
    command = [os.path.join(binaries, "put_load"), "--url", url, "--method", method, "--body", body, "--cacert", cacert,
               "--count", str(count), "--outstanding", str(outstanding)]
    for header in headers:
        command += ["--header", header]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise Failure(done.stderr.strip() or f"put_load ended with {done.returncode}")
    return json.loads(done.stdout)


def writes(pids, one):
    """`one(outstanding, count)` does the writes of one row."""
    rows = {}
    for outstanding in OUTSTANDING:
        one(outstanding, WRITES[outstanding] // 10)  # connections, caches
        cpu, disk = cpu_s(pids), written_bytes(pids)
        row = one(outstanding, WRITES[outstanding])
        row["per_second"] = row["answered"] / row["seconds"]
        row["cpu_ms_per_write"] = (cpu_s(pids) - cpu) * 1e3 / row["answered"]
        row["disk_bytes_per_write"] = (written_bytes(pids) - disk) / row["answered"]
        rows[str(outstanding)] = row
        say(f"{outstanding} outstanding: {json.dumps(row)}")
    return rows


def idle(pids, data, seconds):
    wait_for_quiet(data)
    files, before, cpu = file_times(data), written_bytes(pids), cpu_s(pids)
    time.sleep(seconds)
    changed = [path for path, seen in file_times(data).items() if files.get(path) != seen]
    return {"seconds": seconds, "bytes_written": written_bytes(pids) - before, "files_changed": len(changed),
            "core_percent_each": (cpu_s(pids) - cpu) * 100 / seconds / len(pids)}


def side(pids, data, one, idle_s):
    result = {"idle": idle(pids, data, idle_s), "rss_kib_each_idle": rss_kib(pids) / len(pids)}
    say(json.dumps(result["idle"]))
    result["writes"] = writes(pids, one)
    result["rss_kib_each"] = rss_kib(pids) / len(pids)
    return result


# --- ours ---

def boards_side(given):
    with Cluster(given.bin) as cluster:
        cluster.make(3)
        pids = [board.pid() for board in cluster.boards.values()]
        leader = cluster.leader()
        import_sites(cluster, [f"site-{number:04d}" for number in range(SITES)])
        token = leader.json("token", "create", "--role", "operator", "--ttl", "1h")["secret"]
        ca = os.path.join(leader.data, "ca.crt")
        # Three labels with the number in them: a write of BYTES bytes that differs from the one before.
        text = "x" * 46 + "%n"
        labels = {f"label-{name}": text for name in "abc"}

        def one(outstanding, count):
            return put_load(given.bin, f"https://{leader.address}/v1/sites/site-%w", outstanding, count, "PATCH",
                            json.dumps({"labels": labels}), ca,
                            [f"Authorization: Bearer {token}", "Content-Type: application/merge-patch+json"])

        return side(pids, [board.data for board in cluster.boards.values()], one, given.idle)


# --- etcd ---

def free_ports(host, count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind((host, 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def certificates(directory, hosts):
    """One self-signed certificate for all members, of the kind that ours have."""
    key, certificate = os.path.join(directory, "etcd.key"), os.path.join(directory, "etcd.pem")
    run_quiet(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
               "2", "-subj", "/CN=etcd", "-addext", "subjectAltName=" + ",".join(f"IP:{host}" for host in [*hosts, "127.0.0.1"]),
               "-keyout", key, "-out", certificate])
    return key, certificate


class Etcd:
    def __init__(self, directory):
        self.dir = directory
        self.hosts = [f"127.77.{os.getpid() % 200 + 1}.{number}" for number in (1, 2, 3)]
        self.ports = [free_ports(host, 2) for host in self.hosts]
        self.key, self.certificate = certificates(directory, self.hosts)
        self.processes = []

    def url(self, number, peer=False):
        return f"https://{self.hosts[number]}:{self.ports[number][1 if peer else 0]}"

    def start(self):
        members = ",".join(f"m{number}={self.url(number, True)}" for number in range(3))
        for number in range(3):
            command = ["etcd", "--name", f"m{number}", "--data-dir", self.data(number), "--initial-cluster", members,
                       "--initial-cluster-state", "new", "--listen-client-urls", self.url(number),
                       "--advertise-client-urls", self.url(number), "--listen-peer-urls", self.url(number, True),
                       "--initial-advertise-peer-urls", self.url(number, True), "--cert-file", self.certificate,
                       "--key-file", self.key, "--peer-cert-file", self.certificate, "--peer-key-file", self.key,
                       "--peer-trusted-ca-file", self.certificate, "--logger", "zap", "--log-level", "warn"]
            with open(os.path.join(self.dir, f"m{number}.log"), "wb") as log:
                self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                       preexec_fn=die_with_parent))
        return wait_for(30, f"etcd has no leader; logs in {self.dir}", self.leader, 0.5)

    def data(self, number):
        return os.path.join(self.dir, f"m{number}")

    def leader(self):
        """The number of the member that leads, plus one."""
        for number in range(3):
            done = subprocess.run(["curl", "-s", "-m", "5", "--cacert", self.certificate, "-X", "POST", "-d", "{}",
                                   f"{self.url(number)}/v3/maintenance/status"], capture_output=True, text=True)
            try:
                answer = json.loads(done.stdout)
            except ValueError:
                return None
            if answer.get("leader") == answer.get("header", {}).get("member_id"):
                return number + 1
        return None

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


def etcd_side(given):
    with tempfile.TemporaryDirectory(prefix="tiebreak.etcd.") as directory:
        etcd = Etcd(directory)
        try:
            leader = etcd.start() - 1
            pids = [process.pid for process in etcd.processes]
            value = base64.b64encode(b"x" * BYTES).decode()

            def one(outstanding, count):
                return put_load(given.bin, f"{etcd.url(leader)}/v3/kv/put", outstanding, count, "POST",
                                '{"key": "%w", "value": "' + value + '"}', etcd.certificate,
                                ["Content-Type: application/json"])

            return side(pids, [etcd.data(number) for number in range(3)], one, given.idle)
        finally:
            etcd.end()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("--keep", action="store_true", help="in docs/benchmarks, and write docs/BENCHMARKS.md")
    parser.add_argument("--idle", type=int, default=60, help="idle seconds")
    given = parser.parse_args()
    tempfile.tempdir = disk_directory()
    began, load = time.monotonic(), os.getloadavg()[0]
    say("etcd, three members")
    theirs = etcd_side(given)
    say("three boards")
    ours = boards_side(given)
    result = {"boards": ours, "etcd": theirs, **report.machine(load), "seconds": time.monotonic() - began}
    if given.keep:
        report.keep("etcd.json", result)
    print(report.beside_etcd(result))
    if ours["idle"]["bytes_written"] != 0:
        print(f"BROKEN PROMISE: boards wrote {ours['idle']['bytes_written']} bytes while nothing happened")
        sys.exit(1)


if __name__ == "__main__":
    main()
