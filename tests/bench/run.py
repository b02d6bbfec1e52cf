#!/usr/bin/env python3
"""`run.py BIN [RESULT.json]`: this witness on three boards beside Debian's corosync-qnetd, in one run, with one
load generator (qnet_load: QNet over TLS, two nodes for each site). Prints both sides and their ratio.

No time is asserted: machines differ. A status other than 0 means that a promise was broken (two sides
of a site held the vote, a board wrote to its disk while nothing happened) or that the run failed.
docs/BENCHMARKS.md says what each line means."""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
from boards import Cluster, Failure, die_with_parent
from enroll_all import request_for
from torture import UnixConnection

SITES = 1000
PROBES = 20  # sites attached beforehand, whose echoes are timed while the others attach
PROBE_HEARTBEAT_MS = 2000  # is also a node's limit for a connect
IMPORTED = 10000
TICK = os.sysconf("SC_CLK_TCK")
PAGE_KB = os.sysconf("SC_PAGESIZE") // 1024


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- processes, seen through /proc ---

def cpu_s(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def rss_kb(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/statm") as statm:
            total += int(statm.read().split()[1]) * PAGE_KB
    return total


def written_bytes(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/io") as io:
            total += int(dict(line.split(": ") for line in io)["write_bytes"])
    return total


def file_times(directories):
    """Every file below, with its size and when it was written last."""
    seen = {}
    for directory in directories:
        if not os.path.isdir(directory):
            raise Failure(f"{directory} was removed by somebody")
        for where, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(where, name)
                try:
                    status = os.stat(path)
                except FileNotFoundError:
                    continue
                seen[path] = (status.st_size, status.st_mtime_ns)
    return seen


# --- the load ---

class Load:
    """One qnet_load that takes commands."""

    def __init__(self, binaries, addresses, sites, prefix, tls, heartbeat_ms=8000):
        self.sites = sites
        self.process = subprocess.Popen(
            [os.path.join(binaries, "qnet_load"), "--address", ",".join(addresses), "--sites", str(sites),
             "--prefix", prefix, "--spread", "--interactive", "--heartbeat", str(heartbeat_ms)] + tls,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, preexec_fn=die_with_parent)

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.strip() == "ok":
                return lines
            lines.append(line.rstrip())
        raise Failure("qnet_load ended")

    def settle(self, seconds):
        """The seconds it took until every site was whole or had one side, or None."""
        words = self.tell(f"wait {seconds}")[0].split()
        return float(words[-2]) if words[0] == "settled" else None

    def times(self):
        """{"echo": {"count": N, "p50_us": N...}, ...}"""
        return {name: {key: int(value) for key, value in (part.split() for part in rest.split(", "))}
                for name, rest in (line.split(": ", 1) for line in self.tell("times"))}

    def numbers(self):
        line = self.tell("status")[0].removeprefix("status: ")
        return {part.rsplit(" ", 1)[0]: int(part.rsplit(" ", 1)[1]) for part in line.split(", ")}

    def end(self):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait(20)


def attach(name, pids, load, probe, limit):
    """All sites attach at once while the probes' echoes are timed."""
    probe.tell("attach")
    if probe.settle(60) is None:
        raise Failure(f"{name}: the probes did not attach: {' '.join(probe.tell('status'))}")
    time.sleep(2)
    rss = rss_kb(pids)
    cpu = cpu_s(pids)
    probe.tell("clear")
    load.tell("attach")
    # The probes run only while they are waited on: their wait ends with the load's.
    done = threading.Event()
    timing = threading.Thread(target=keep_going, args=(probe, done))
    began = time.monotonic()
    timing.start()
    seconds = load.settle(limit)
    done.set()
    timing.join()
    used = cpu_s(pids) - cpu
    whole = load.numbers()["whole"]
    took = time.monotonic() - began
    echo = probe.times()["echo"]
    time.sleep(3)
    return {"settled": seconds is not None, "seconds": seconds or took, "sites_whole": whole,
            # Of a server that died or let hardly anybody in, nothing can be said per attach.
            "cpu_ms_per_attach": used * 1e3 / (2 * whole) if whole > 100 else None,
            "kb_per_session": (rss_kb(pids) - rss) / (2 * whole) if whole > 100 else None,
            "attach": load.times()["attach"], "echo_while_attaching": echo}


def keep_going(probe, done):
    while not done.is_set():
        probe.tell("status")
        time.sleep(0.2)


def storm(pids, load, limit):
    """Every site splits at the same moment."""
    cpu = cpu_s(pids)
    load.tell("split 100")
    settled = load.settle(limit) is not None
    numbers = load.numbers()
    result = {"settled": settled, "one_side": numbers["one-side"],
              "cpu_ms_per_split": (cpu_s(pids) - cpu) * 1e3 / load.sites, "split": load.times()["split"]}
    load.tell("heal")
    result["heal_seconds"] = load.settle(limit)
    return result


def heartbeats(pids, seconds, load):
    """What keeping the sessions costs: CPU for 1,000 heartbeats, every node sends one in 8 s."""
    cpu = cpu_s(pids)
    load.tell("clear")
    time.sleep(seconds)
    used = cpu_s(pids) - cpu
    echo = load.times()["echo"]
    return {"cpu_s_per_1000": used * 1e3 / max(1, echo["count"]), "core_percent": used * 100 / seconds,
            "echo": echo}


# --- corosync-qnetd ---

def run_quiet(command, text=None, **how):
    done = subprocess.run(command, input=text, capture_output=True, text=True, **how)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")


def nss_database(directory):
    """A CA and a server certificate as corosync-qnetd-certutil -i makes them, but in a folder of our
    own; the CA's key also goes to the load generator, which signs a certificate for each site."""
    db, password, noise = (os.path.join(directory, name) for name in ("nssdb", "password", "noise"))
    os.makedirs(db)
    open(password, "w").close()
    with open(noise, "wb") as file:
        file.write(os.urandom(64))
    common = ["-d", db, "-f", password]
    run_quiet(["certutil", "-N"] + common)
    run_quiet(["certutil", "-S", "-n", "QNet CA", "-s", "CN=QNet CA", "-x", "-t", "CT,,", "-m", "101", "-v", "12",
               "-z", noise, "-2"] + common, "y\n0\ny\n")
    run_quiet(["certutil", "-S", "-n", "QNetd Cert", "-s", "CN=Qnetd Server", "-c", "QNet CA", "-t", "u,u,u",
               "-m", "102", "-v", "12", "-z", noise] + common)
    ca, bundle, key = (os.path.join(directory, name) for name in ("ca.crt", "ca.p12", "ca.key"))
    run_quiet(["certutil", "-L", "-d", db, "-n", "QNet CA", "-a", "-o", ca])
    run_quiet(["pk12util", "-o", bundle, "-n", "QNet CA", "-d", db, "-k", password, "-W", "bench"])
    run_quiet(["openssl", "pkcs12", "-in", bundle, "-passin", "pass:bench", "-nodes", "-nocerts", "-out", key])
    return db, ["--tls", "--ca", ca, "--ca-key", key]


def measure_qnetd(cluster, limit):
    directory = os.path.join(cluster.dir, "qnetd")
    os.makedirs(directory)
    db, tls = nss_database(directory)
    host = f"{cluster.net}.100"
    with open(os.path.join(directory, "log"), "wb") as log:
        server = subprocess.Popen(
            ["corosync-qnetd", "-4", "-f", "-l", host, "-p", "5403", "-s", "req", "-c", "on", "-S",
             f"nss_db_dir={db},lock_file={directory}/pid,local_socket_file={directory}/sock,listen_backlog=4096"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
    cluster.cleanups.append(lambda: server.poll() is not None or server.kill())
    pids = [server.pid]
    time.sleep(2)
    if server.poll() is not None:
        raise Failure(f"corosync-qnetd ended with {server.returncode}")
    result = {"idle": idle_without_sites(pids)}
    load = Load(cluster.bin, [f"{host}:5403"], SITES, "site-", tls)
    probe = Load(cluster.bin, [f"{host}:5403"], PROBES, "probe-", tls, PROBE_HEARTBEAT_MS)
    say(f"corosync-qnetd: {SITES} sites attach")
    result["attach"] = attach("corosync-qnetd", pids, load, probe, limit)
    probe.end()
    if result["attach"]["settled"]:
        say("corosync-qnetd: heartbeats, then all sites split")
        result["heartbeats"] = heartbeats(pids, 10, load)
        result["storm"] = storm(pids, load, limit)
    result["alive"] = server.poll() is None
    result["violations"] = load.numbers()["violations"]
    load.end()
    if server.poll() is None:
        server.terminate()
        server.wait(20)
    return result


# --- boards ---

def idle_without_sites(pids, seconds=5):
    cpu = cpu_s(pids)
    time.sleep(seconds)
    return {"rss_kb_each": rss_kb(pids) / len(pids),
            "core_percent_each": (cpu_s(pids) - cpu) * 100 / seconds / len(pids)}


def import_sites(cluster):
    """As an operator does it: one file, through one board."""
    path = os.path.join(cluster.dir, "sites.csv")
    with open(path, "w") as file:
        file.write("name,label.region,algorithm\n")
        for number in range(1, PROBES + 1):
            file.write(f"probe-{number:04d},none,ffsplit\n")
        for number in range(1, IMPORTED - PROBES + 1):
            file.write(f"site-{number:04d},{('emea', 'amer', 'apac')[number % 3]},ffsplit\n")
    pids = [board.pid() for board in cluster.boards.values()]
    cpu = cpu_s(pids)
    began = time.monotonic()
    cluster.board(2).ctl("site", "import", path, timeout=180)
    seconds = time.monotonic() - began
    return {"sites": IMPORTED, "seconds": seconds, "per_second": IMPORTED / seconds,
            "cpu_s_all_boards": cpu_s(pids) - cpu}


def enroll(cluster, names):
    """A certificate of the cluster for each site; one key serves all, as the nodes are simulated."""
    directory = os.path.join(cluster.dir, "certificates")
    os.makedirs(directory)
    key = os.path.join(directory, "key.pem")
    run_quiet(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key])
    ask = json.dumps({"csr": request_for("any", key)})
    connection = UnixConnection(cluster.board(1).socket, 30)
    for name in names:
        connection.request("POST", f"/v1/sites/{name}:enroll", ask, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status not in (200, 201):
            raise Failure(f"enrolment of {name}: {answer.status} {body}")
        with open(os.path.join(directory, f"{name}.crt"), "w") as file:
            file.write(json.loads(body)["certificate"])
        os.link(key, os.path.join(directory, f"{name}.key"))
    out = os.path.join(cluster.dir, "enrolled")
    os.makedirs(out)
    cluster.board(1).ctl("site", "enroll", names[0], "--out", out)
    return ["--tls", "--ca", os.path.join(out, "qnetd-cacert.crt"), "--cert-dir", directory]


def idle_minute(cluster, load, seconds):
    """Nothing happens but heartbeats. The boards' disks must not notice."""
    pids = [board.pid() for board in cluster.boards.values()]
    data = [board.data for board in cluster.boards.values()]
    wait_for_quiet(data)
    files, before, cpu, lost = file_times(data), written_bytes(pids), cpu_s(pids), load.numbers()
    load.tell("clear")
    time.sleep(seconds)
    after, used = written_bytes(pids), cpu_s(pids) - cpu
    now = file_times(data)
    echo = load.times()["echo"]
    changed = {os.path.relpath(path, cluster.dir): [files.get(path), now.get(path)]
               for path in sorted(set(files) | set(now)) if files.get(path) != now.get(path)}
    return {"seconds": seconds, "bytes_written": after - before, "files_changed": changed,
            "sites_whole": load.numbers()["whole"],
            "connections_lost": load.numbers()["connections-lost"] - lost["connections-lost"],
            "heartbeats": {"cpu_s_per_1000": used * 1e3 / max(1, echo["count"]),
                           "core_percent": used * 100 / seconds, "echo": echo}}


def wait_for_quiet(data, limit=30):
    """Until what led here (attaching, a snapshot) has been written: no change for five seconds."""
    end = time.monotonic() + limit
    seen, since = file_times(data), time.monotonic()
    while time.monotonic() - since < 5 and time.monotonic() < end:
        time.sleep(0.5)
        now = file_times(data)
        if now != seen:
            seen, since = now, time.monotonic()


def measure_boards(cluster, limit, idle_s):
    say("boards: three boards form a cluster")
    cluster.make(3)
    pids = [board.pid() for board in cluster.boards.values()]
    cluster.leader()
    time.sleep(2)
    result = {"idle": idle_without_sites(pids)}
    say(f"boards: import of {IMPORTED} sites")
    result["import"] = import_sites(cluster)
    say("boards: certificates")
    tls = enroll(cluster, [f"probe-{number:04d}" for number in range(1, PROBES + 1)] +
                 [f"site-{number:04d}" for number in range(1, SITES + 1)])
    addresses = [board.sites_address for board in cluster.boards.values()]
    load = Load(cluster.bin, addresses, SITES, "site-", tls)
    probe = Load(cluster.bin, addresses, PROBES, "probe-", tls, PROBE_HEARTBEAT_MS)
    say(f"boards: {SITES} sites attach")
    result["attach"] = attach("boards", pids, load, probe, limit)
    probe.end()
    say(f"boards: {idle_s} idle seconds")
    result["idle_minute"] = idle_minute(cluster, load, idle_s)
    result["heartbeats"] = result["idle_minute"].pop("heartbeats")
    say("boards: all sites split")
    result["storm"] = storm(pids, load, limit)
    result["violations"] = load.numbers()["violations"]
    load.end()
    return result


# --- the table ---

def at(tree, path):
    for key in path.split("/"):
        if tree is None or key not in tree:
            return None
        tree = tree[key]
    return tree


LINES = [  # what, where in the result, factor, unit
    ("attach 1,000 sites (2,000 TLS connects)", "attach/seconds", 1, "s"),
    ("CPU per attach", "attach/cpu_ms_per_attach", 1, "ms"),
    ("memory per session", "attach/kb_per_session", 1, "kB"),
    ("echo p50 while 1,000 sites attach", "attach/echo_while_attaching/p50_us", 1e-3, "ms"),
    ("echo p99 while 1,000 sites attach", "attach/echo_while_attaching/p99_us", 1e-3, "ms"),
    ("CPU for 1,000 heartbeats", "heartbeats/cpu_s_per_1000", 1, "s"),
    ("echo p50, nothing else to do", "heartbeats/echo/p50_us", 1e-3, "ms"),
    ("1,000 sites split: decision p50", "storm/split/p50_us", 1e-3, "ms"),
    ("1,000 sites split: decision p99", "storm/split/p99_us", 1e-3, "ms"),
    ("1,000 sites split: the last decision", "storm/split/max_us", 1e-3, "ms"),
    ("CPU per split", "storm/cpu_ms_per_split", 1, "ms"),
    ("no sites: memory of one server", "idle/rss_kb_each", 1 / 1024, "MB"),
    ("no sites: CPU of one server, of a core", "idle/core_percent_each", 1, "%"),
]


def number(value, unit):
    if value is None:
        return "-"
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def ratio(ours, theirs):
    if ours is None or theirs is None or ours <= 0 or theirs <= 0:
        return "-"
    return f"1 : {theirs / ours:.3g}" if theirs >= ours else f"{ours / theirs:.3g} : 1"


def table(result):
    ours, theirs = result["boards"], result.get("corosync_qnetd")
    rows = [("", "three boards", "corosync-qnetd", "ours : qnetd")]
    for what, path, factor, unit in LINES:
        pair = [None if value is None else value * factor for value in (at(ours, path), at(theirs, path))]
        rows.append((what, number(pair[0], unit), number(pair[1], unit), ratio(*pair)))
    for row in rows:
        print(f"{row[0]:<42}{row[1]:>16}{row[2]:>17}{row[3]:>15}")
    moved = ours["import"]
    idle = ours["idle_minute"]
    print(f"\nimport of {moved['sites']} sites, three boards: {moved['seconds']:.1f} s "
          f"({moved['per_second']:.0f} sites/s)")
    print(f"written to disk in {idle['seconds']} idle seconds with {idle['sites_whole']} sites attached: "
          f"{idle['bytes_written']} bytes, {len(idle['files_changed'])} files changed")
    for name, side in (("three boards", ours), ("corosync-qnetd", theirs)):
        if side is None:
            continue
        print(f"moments in which two sides of a site held the vote, {name}: {side['violations']}")
        if side.get("alive") is False:
            print(f"note: {name} died while the sites attached")
        for phase in ("attach", "storm"):
            if not at(side, f"{phase}/settled"):
                print(f"note: {name} did not come to rest in the phase '{phase}'")
    print("\nAll CPU and memory of ours is the sum over three boards (lines \"of one server\" aside), every grant is on\n"
          "the disks of two boards before it is told; corosync-qnetd keeps nothing and runs with listen_backlog=4096\n"
          "(10 as shipped). Both on this machine, one after the other; the load generator shares its cores.")


def broken_promises(result):
    ours = result["boards"]
    broken = []
    if ours["violations"] != 0:
        broken.append(f"two sides of a site held the vote {ours['violations']} times")
    idle = ours["idle_minute"]
    if idle["bytes_written"] != 0 or idle["files_changed"]:
        broken.append(f"boards wrote while idle: {idle['bytes_written']} bytes; {' '.join(idle['files_changed'])}")
    return broken


def disk_directory():
    """Where files are on a disk: writes to a memory file system are not counted."""
    for directory in (os.environ.get("TMPDIR", "/var/tmp"), os.getcwd()):
        kind = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True).stdout.strip()
        if kind not in ("tmpfs", "ramfs"):
            return directory
    raise Failure("no directory on a disk: set TMPDIR")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("result", nargs="?")
    parser.add_argument("--idle", type=int, default=60, help="idle seconds")
    parser.add_argument("--limit", type=int, default=90, help="seconds for each phase")
    parser.add_argument("--only-boards", action="store_true", help="without corosync-qnetd")
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tempfile.tempdir = disk_directory()
    began = time.monotonic()
    result = {"sites": SITES, "cpus": os.cpu_count(), "load_before": os.getloadavg()[0]}
    with Cluster(given.bin) as cluster:
        if not given.only_boards:
            result["corosync_qnetd"] = measure_qnetd(cluster, given.limit)
        result["boards"] = measure_boards(cluster, given.limit, given.idle)
    result["broken_promises"] = broken_promises(result)
    result["seconds"] = time.monotonic() - began
    if given.result:
        with open(given.result, "w") as file:
            json.dump(result, file, indent=1)
    print(f"\n{os.cpu_count()} CPUs, load {result['load_before']:.1f} when it began; "
          f"{result['seconds']:.0f} s in all\n")
    table(result)
    for promise in result["broken_promises"]:
        print(f"BROKEN PROMISE: {promise}")
    sys.exit(1 if result["broken_promises"] else 0)


if __name__ == "__main__":
    main()
