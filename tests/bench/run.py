#!/usr/bin/env python3
"""`run.py BIN [--keep]`: this witness on three boards beside Debian's corosync-qnetd, in one run, with one
load generator (qnet_load: two nodes for each site), over TLS and in the clear, at several sizes. Prints both
sides and their ratio, and with --keep writes docs/BENCHMARKS.md (report.py).

No time is asserted: machines differ. A status other than 0 means that a promise was broken (two sides
of a site held the vote, a board wrote to its disk while nothing happened) or that the run failed."""

import argparse
import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import report
from boards import Cluster, Failure, die_with_parent
from load import Load, cpu_s, enroll, import_sites, raise_files_limit, rss_kib, run_quiet

PROBES = 20  # sites attached beforehand, whose echoes are timed while the others attach
PROBE_HEARTBEAT_MS = 4000  # is also a node's limit for a connect
HEARTBEAT_MS = 8000
SOURCES = ("--sources", "500")  # of one address, each site would be worth an alarm
IMPORTED = 10000
QNETD_ATTEMPTS = 2


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


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


# --- the phases, the same for both sides ---

def attach(name, pids, load, probe, limit):
    """All sites attach at once while the probes' echoes are timed."""
    probe.tell("attach")
    if probe.settle(60) is None:
        raise Failure(f"{name}: the probes did not attach: {probe.trouble()}")
    time.sleep(2)
    rss, cpu = rss_kib(pids), cpu_s(pids)
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
            "cpu_ms_per_attach": used * 1e3 / (2 * whole) if whole >= 50 else None,
            "kib_per_session": (rss_kib(pids) - rss) / (2 * whole) if whole >= 50 else None,
            "attach": load.times()["attach"], "echo_while_attaching": echo}


def keep_going(probe, done):
    while not done.is_set():
        probe.tell("status")
        time.sleep(0.2)


def heartbeats(pids, seconds, load):
    """What keeping the sessions costs: CPU for 1,000 heartbeats, every node sends one in 8 s."""
    cpu = cpu_s(pids)
    load.tell("clear")
    time.sleep(seconds)
    used = cpu_s(pids) - cpu
    echo = load.times()["echo"]
    return {"cpu_s_per_1000": used * 1e3 / max(1, echo["count"]), "core_percent": used * 100 / seconds,
            "echo": echo}


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


def reattach(pids, load, limit):
    """All connections are reset at the same moment. The nodes come back by their own sleep, all after 2.386 s."""
    cpu = cpu_s(pids)
    load.tell("clear")
    load.tell("reset")
    seconds = load.settle(limit)
    return {"settled": seconds is not None, "seconds": seconds,
            "cpu_ms_per_session": (cpu_s(pids) - cpu) * 1e3 / (2 * load.sites), "attach": load.times()["attach"]}


def phases(name, pids, load, probe, limit, result):
    """Fills `result`, which holds what was measured if the server dies."""
    result["attach"] = attach(name, pids, load, probe, limit)
    probe.end()
    if not result["attach"]["settled"]:
        return
    result["heartbeats"] = heartbeats(pids, 10, load)
    result["storm"] = storm(pids, load, limit)
    result["reattach"] = reattach(pids, load, limit)


def idle_without_sites(pids, seconds=5):
    cpu = cpu_s(pids)
    time.sleep(seconds)
    return {"rss_kib_each": rss_kib(pids) / len(pids),
            "core_percent_each": (cpu_s(pids) - cpu) * 100 / seconds / len(pids)}


# --- corosync-qnetd ---

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


def qnetd_case(cluster, db, tls, sites, limit):
    host = f"{cluster.net}.100"
    directory = tempfile.mkdtemp(prefix="qnetd.", dir=cluster.dir)
    with open(os.path.join(directory, "log"), "wb") as log:
        server = subprocess.Popen(
            ["corosync-qnetd", "-4", "-f", "-l", host, "-p", "5403", "-s", "req" if tls else "off",
             "-c", "on" if tls else "off", "-S",
             f"nss_db_dir={db},lock_file={directory}/pid,local_socket_file={directory}/sock,listen_backlog=4096"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
    cluster.cleanups.append(lambda: server.poll() is not None or server.kill())
    time.sleep(2)
    if server.poll() is not None:
        raise Failure(f"corosync-qnetd ended with {server.returncode}")
    pids = [server.pid]
    idle = idle_without_sites(pids)
    load = Load(cluster.bin, [f"{host}:5403"], sites, "site-", tls, HEARTBEAT_MS, SOURCES)
    probe = Load(cluster.bin, [f"{host}:5403"], PROBES, "probe-", tls, PROBE_HEARTBEAT_MS, SOURCES)
    result = {"idle": idle}
    try:
        phases("corosync-qnetd", pids, load, probe, limit, result)
    except (Failure, FileNotFoundError, ProcessLookupError) as error:
        # A server that dies in a storm, or lets nobody in any more, is a result, not a failure of the run.
        if server.poll() is None:
            say(f"{error}")
            server.kill()
            server.wait(20)
    result.update({"alive": server.poll() is None, "violations": load.numbers()["violations"]})
    load.end()
    if server.poll() is None:
        server.terminate()
        server.wait(20)
    return result


def qnetd_that_lives(cluster, db, tls, sites, limit):
    """It dies of some orders of events (INIT, INIT, disconnect), or refuses a node whose first connection it still
    counts; it gets two attempts."""
    for deaths in range(QNETD_ATTEMPTS):
        result = qnetd_case(cluster, db, tls, sites, limit)
        result["deaths"] = deaths + (not result["alive"])
        if result["alive"] or "storm" in result:
            break
    return result


# --- boards ---

def site_names(count):
    return [f"probe-{number:04d}" for number in range(1, PROBES + 1)] + \
           [f"site-{number:04d}" for number in range(1, count + 1)]


def listing_seconds(board):
    """All sites by pages of 1,000 over HTTPS on one connection, with a token, until the last byte; the best of
    five."""
    token = board.json("token", "create", "--role", "viewer", "--ttl", "1h")["secret"]
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # what is timed is the board
    connection = http.client.HTTPSConnection(board.host, int(board.address.rpartition(":")[2]), context=context)
    best = None
    for _ in range(5):
        page, count, spent = "", 0, 0
        while True:
            began = time.monotonic()
            connection.request("GET", "/v1/sites?limit=1000" + (f"&page={page}" if page else ""),
                               headers={"Authorization": f"Bearer {token}"})
            text = connection.getresponse().read()
            spent += time.monotonic() - began
            answer = json.loads(text)
            count, page = count + len(answer["items"]), answer.get("nextPage", "")
            if not page:
                break
        best = min(spent, best or spent)
    connection.close()
    return {"sites": count, "seconds": best}


def wait_for_quiet(data, limit=30):
    """Until what led here (attaching, a snapshot) has been written: no change for five seconds."""
    end = time.monotonic() + limit
    seen, since = file_times(data), time.monotonic()
    while time.monotonic() - since < 5 and time.monotonic() < end:
        time.sleep(0.5)
        now = file_times(data)
        if now != seen:
            seen, since = now, time.monotonic()


def idle_attached(cluster, load, seconds):
    """Nothing happens but heartbeats. The boards' disks must not notice."""
    pids = [board.pid() for board in cluster.boards.values()]
    data = [board.data for board in cluster.boards.values()]
    wait_for_quiet(data)
    files, before, lost = file_times(data), written_bytes(pids), load.numbers()
    time.sleep(seconds)
    after, now = written_bytes(pids), file_times(data)
    changed = {os.path.relpath(path, cluster.dir): [files.get(path), now.get(path)]
               for path in sorted(set(files) | set(now)) if files.get(path) != now.get(path)}
    numbers = load.numbers()
    return {"seconds": seconds, "bytes_written": after - before, "files_changed": changed,
            "sites_whole": numbers["whole"],
            "connections_lost": numbers["connections-lost"] - lost["connections-lost"]}


def boards_case(given, sites, with_tls, idle_s):
    with Cluster(given.bin) as cluster:
        cluster.make(3)
        pids = [board.pid() for board in cluster.boards.values()]
        cluster.leader()
        time.sleep(2)
        idle = idle_without_sites(pids)
        rest = IMPORTED - PROBES - sites
        names = site_names(sites)
        cpu = cpu_s(pids)
        imported = import_sites(cluster, names + [f"other-{number:05d}" for number in range(rest)], 2)
        used = cpu_s(pids) - cpu
        listed = listing_seconds(cluster.board(3))
        tls = enroll(cluster, names) if with_tls else []
        addresses = [board.sites_address for board in cluster.boards.values()]
        load = Load(cluster.bin, addresses, sites, "site-", tls, HEARTBEAT_MS, SOURCES)
        probe = Load(cluster.bin, addresses, PROBES, "probe-", tls, PROBE_HEARTBEAT_MS, SOURCES)
        result = {}
        phases("boards", pids, load, probe, given.limit, result)
        if idle_s:
            result["idle_minute"] = idle_attached(cluster, load, idle_s)
        result.update({"idle": idle, "violations": load.numbers()["violations"], "list": listed,
                       "import": {"sites": IMPORTED, "seconds": imported, "cpu_s_all_boards": used}})
        load.end()
    return result


def measure(given):
    cases = []
    with Cluster(given.bin) as scratch:
        db, certificates = None, []
        if not given.only_boards:
            db, certificates = nss_database(scratch.dir)
        for with_tls in (True, False):
            for sites in given.sizes if with_tls or not given.clear_sizes else given.clear_sizes:
                case = {"sites": sites, "tls": with_tls}
                kind = "TLS" if with_tls else "in the clear"
                if not given.only_boards:
                    say(f"corosync-qnetd, {sites} sites, {kind}")
                    case["corosync_qnetd"] = qnetd_that_lives(scratch, db, certificates if with_tls else [], sites,
                                                              given.limit)
                say(f"boards, {sites} sites, {kind}")
                last = with_tls and sites == given.sizes[-1]
                case["boards"] = boards_case(given, sites, with_tls, given.idle if last else 0)
                cases.append(case)
    return cases


def broken_promises(cases):
    broken = []
    for case in cases:
        ours = case["boards"]
        if ours["violations"] != 0:
            broken.append(f"two sides of a site held the vote {ours['violations']} times")
        idle = ours.get("idle_minute")
        if idle and (idle["bytes_written"] != 0 or idle["files_changed"]):
            broken.append(f"boards wrote while idle: {idle['bytes_written']} bytes; "
                          f"{' '.join(idle['files_changed'])}")
    return broken


def disk_directory():
    """Where files are on a disk: writes to a memory file system are not counted."""
    own = os.path.realpath(os.path.join(HERE, "..", "..", "build", "tmp"))
    os.makedirs(own, exist_ok=True)
    for directory in (own, os.environ.get("TMPDIR", "/var/tmp")):
        kind = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True).stdout.strip()
        if kind not in ("tmpfs", "ramfs"):
            return directory
    raise Failure("no directory on a disk: set TMPDIR")


def numbers(text):
    return [int(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("--result", help="write the numbers to this file as well")
    parser.add_argument("--keep", action="store_true", help="in docs/benchmarks, and write docs/BENCHMARKS.md")
    parser.add_argument("--sizes", type=numbers, default=[100, 500, 2000], help="sites over TLS, separated by commas")
    parser.add_argument("--clear-sizes", type=numbers, help="sites in the clear; like those over TLS unless said")
    parser.add_argument("--idle", type=int, default=60, help="idle seconds")
    parser.add_argument("--limit", type=int, default=90, help="seconds for each phase")
    parser.add_argument("--in-memory", action="store_true", help="no file on a disk; writes are not counted")
    parser.add_argument("--only-boards", action="store_true", help="without corosync-qnetd")
    given = parser.parse_args()
    raise_files_limit()
    if not given.in_memory:
        tempfile.tempdir = disk_directory()
    began, load = time.monotonic(), os.getloadavg()[0]
    cases = measure(given)
    result = {"cases": cases, "broken_promises": broken_promises(cases), **report.machine(load),
              "seconds": time.monotonic() - began}
    if given.result:
        with open(given.result, "w") as file:
            json.dump(result, file, indent=1)
    if given.keep:
        report.keep("bench.json", result)
    print(report.side_by_side(result))
    for promise in result["broken_promises"]:
        print(f"BROKEN PROMISE: {promise}")
    sys.exit(1 if result["broken_promises"] else 0)


if __name__ == "__main__":
    main()
