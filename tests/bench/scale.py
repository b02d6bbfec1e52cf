#!/usr/bin/env python3
"""`scale.py BIN [--keep] [--sites N]`: ten thousand two-node sites on three boards of this machine, TLS with
a client certificate for each site: all attach in the same moment, all split in the same moment, a board is
killed and its sessions come to the others. Prints what it took; fails for a broken promise only (two
sides of a site with the vote, an election or an unanswered API read while the sites attach, a grant that
is not on a majority, sites that do not come to rest)."""

import argparse
import json
import os
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import report
from boards import Cluster
from load import Fleet, Watch, cpu_s, enroll, grants, import_sites, raise_files_limit, rss_kib, sessions_of


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def storm_of_attaches(fleet, pids, boards, limit, broken):
    rss, cpu = rss_kib(pids), cpu_s(pids)
    began = time.monotonic()
    with Watch(boards[0]) as watch:
        fleet.tell("attach")
        seconds = fleet.settle(limit)
    took = time.monotonic() - began
    seen = watch.result()
    numbers = fleet.numbers()
    used = cpu_s(pids) - cpu
    if seconds is None:
        broken.append(f"only {numbers['whole']} of {fleet.sites} sites attached in {limit} s: {fleet.trouble()}")
    if seen["elections"] != 0 or seen["unanswered"] != 0:
        broken.append(f"while the sites attached: {seen['elections']} elections, {seen['unanswered']} of "
                      f"{seen['asked']} API reads unanswered: {watch.failed[:2]}")
    time.sleep(5)
    attached = numbers["nodes-attached"]
    return {"seconds": seconds or took, "sessions": attached, "cpu_ms_per_session": used * 1e3 / max(1, attached),
            "kib_per_session": (rss_kib(pids) - rss) / max(1, attached), "api": seen,
            "per_board": [sessions_of(board) for board in boards], "attach": fleet.times()["attach"],
            "connections_lost": numbers["connections-lost"]}


def heartbeats(fleet, pids, seconds):
    fleet.tell("clear")
    cpu = cpu_s(pids)
    time.sleep(seconds)
    used = cpu_s(pids) - cpu
    echo = fleet.times()["echo"]
    return {"cpu_s_per_1000": used * 1e3 / max(1, echo["count"]), "core_percent": used * 100 / seconds, "echo": echo}


def grants_of_a_minority(boards, sites, patience=5):
    """Sites whose newest grant is not in the models of two boards of three. (A model follows its log by a
    message of the leader's, hence the patience; test_storm.py kills boards to see what the logs hold.)"""
    end = time.monotonic() + patience
    while True:
        models = [grants(board) for board in boards]
        newest = {name: max(model.get(name, [0])[0] for model in models) for model in models for name in model}
        thin = [name for name, epoch in newest.items()
                if sum(model.get(name, [0])[0] >= epoch for model in models) < 2]
        if len(newest) != sites:
            thin.append(f"(sites with a grant: {len(newest)})")
        if not thin or time.monotonic() > end:
            return thin
        time.sleep(0.5)


def split_storm(fleet, pids, boards, limit, broken):
    cpu = cpu_s(pids)
    with Watch(boards[0]) as watch:
        fleet.tell("split 100")
        seconds = fleet.settle(limit)
    numbers = fleet.numbers()
    times = fleet.times()["split"]
    used = cpu_s(pids) - cpu
    if seconds is None or numbers["one-side"] != fleet.sites:
        broken.append(f"of {fleet.sites} split sites {numbers['one-side']} have one side: {fleet.trouble()}")
    thin = grants_of_a_minority(boards, fleet.sites)
    if thin:
        broken.append(f"{len(thin)} grants of {fleet.sites} are not on two boards: {thin[:3]}")
    result = {"seconds": seconds, "one_side": numbers["one-side"], "split": times,
              "cpu_ms_per_split": used * 1e3 / fleet.sites, "api": watch.result()}
    fleet.tell("heal")
    result["heal_seconds"] = fleet.settle(limit)
    if result["heal_seconds"] is None:
        broken.append(f"after the heal {fleet.numbers()['whole']} of {fleet.sites} sites are whole: "
                      f"{fleet.trouble()}")
    return result


def killed_board(cluster, fleet, limit, broken):
    """A board that does not lead: what is measured is the doors, not an election."""
    leader = cluster.leader()
    victim = next(board for board in cluster.boards.values() if board is not leader)
    moved = sessions_of(victim)
    rest = [board for board in cluster.boards.values() if board is not victim]
    pids = [board.pid() for board in rest]
    fleet.tell("clear")
    cpu = cpu_s(pids)
    victim.kill()
    time.sleep(1)  # the nodes have noticed: from here on "settled" means attached again
    seconds = fleet.settle(limit)
    used = cpu_s(pids) - cpu
    time.sleep(2)
    if seconds is None:
        broken.append(f"after a board's end {fleet.numbers()['whole']} of {fleet.sites} sites are whole: "
                      f"{fleet.trouble()}")
    return {"sessions": moved, "seconds": seconds + 1 if seconds else None, "cpu_s": used,
            "cpu_ms_per_session": used * 1e3 / max(1, moved), "attach": fleet.times()["attach"],
            "per_board": [sessions_of(board) for board in rest]}


def measure(cluster, sites, limit, in_flight):
    broken = []
    cluster.make(3)
    boards = list(cluster.boards.values())
    pids = [board.pid() for board in boards]
    names = [f"site-{number:05d}" for number in range(1, sites + 1)]
    result = {"sites": sites, "in_flight": in_flight, "import_seconds": import_sites(cluster, names)}
    say(f"{sites} sites imported in {result['import_seconds']:.1f} s; certificates")
    began = time.monotonic()
    tls = enroll(cluster, names)
    say(f"certificates made in {time.monotonic() - began:.0f} s; all attach")
    fleet = Fleet(cluster, names, [board.sites_address for board in boards], tls,
                  options=["--in-flight", str(in_flight), "--sources", "5000"], nicer=9)
    result["attach"] = storm_of_attaches(fleet, pids, boards, limit, broken)
    say(json.dumps(result["attach"]))
    result["heartbeats"] = heartbeats(fleet, pids, 10)
    say(f"{json.dumps(result['heartbeats'])}; all split")
    result["storm"] = split_storm(fleet, pids, boards, limit, broken)
    say(f"{json.dumps(result['storm'])}; a board is killed")
    result["killed"] = killed_board(cluster, fleet, limit, broken)
    say(json.dumps(result["killed"]))
    numbers = fleet.numbers()
    result["violations"] = numbers["violations"]
    if numbers["violations"] != 0:
        broken.append(f"two sides of a site held the vote {numbers['violations']} times")
    if numbers["nodes-ended"] != 0:
        broken.append(f"{numbers['nodes-ended']} nodes were sent away for good: {fleet.trouble()}")
    rest = [board.pid() for board in boards if board.running()]
    full = rss_kib(rest)
    fleet.end()
    time.sleep(8)
    result["afterwards"] = {"kib_full": full, "kib_empty": rss_kib(rest), "boards": len(rest)}
    result["broken_promises"] = broken
    return result


def disk_directory():
    """Boards write to a disk, and nobody cleans up below us in the middle of a long run."""
    directory = os.path.join(HERE, "..", "..", "build", "tmp")
    os.makedirs(directory, exist_ok=True)
    return os.path.realpath(directory)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("--keep", action="store_true", help="in docs/benchmarks, and write docs/BENCHMARKS.md")
    parser.add_argument("--sites", type=int, default=10000)
    parser.add_argument("--limit", type=int, default=600, help="seconds for each phase")
    parser.add_argument("--in-flight", type=int, default=64, help="connects under way at once of each generator; 0: all")
    given = parser.parse_args()
    raise_files_limit()
    tempfile.tempdir = disk_directory()
    began, load = time.monotonic(), os.getloadavg()[0]
    with Cluster(given.bin) as cluster:
        result = measure(cluster, given.sites, given.limit, given.in_flight)
    result.update({**report.machine(load), "seconds": time.monotonic() - began})
    if given.keep:
        report.keep("scale.json", result)
    for promise in result["broken_promises"]:
        print(f"BROKEN PROMISE: {promise}")
    sys.exit(1 if result["broken_promises"] else 0)


if __name__ == "__main__":
    main()
