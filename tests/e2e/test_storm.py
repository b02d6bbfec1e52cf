#!/usr/bin/env python3
"""Storms, small: some hundred sites attach in one moment, split in one moment, all boards lose power right
after it, and a killed board's sessions come to the others. tests/bench/scale.py does it with ten thousand."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from boards import Failure, main, wait_for
from load import Fleet, Watch, enroll, grants, import_sites, sessions_of

SITES = 150
SECONDS = 120  # for each phase; it takes a few, but the machine may be busy


def winners(fleet):
    """{site: node} for each split site, as the nodes themselves see it at this moment."""
    found = {}
    for lines in fleet.each(lambda load: load.tell(f"sites {load.sites}")):
        for line in lines:
            name, rest = line.split(None, 1)
            sides = rest.split("node 1:")[1].split("node 2:")
            holders = [number for number, side in enumerate(sides, 1) if side.strip().startswith("has the vote")]
            if len(holders) != 1:
                raise Failure(f"not one side: {line}")
            found[name] = holders[0]
    return found


def settle(fleet, what):
    if fleet.settle(SECONDS) is None:
        raise Failure(f"{what}: {fleet.numbers()}; {fleet.trouble()}")
    numbers = fleet.numbers()
    if numbers["violations"] != 0:
        raise Failure(f"{what}: two sides of a site held the vote {numbers['violations']} times")
    return numbers


def expect(what, got, want):
    if got != want:
        raise Failure(f"{what}: {got}, not {want}")


def everything_whole(fleet):
    """After something that every node notices first."""
    return wait_for(SECONDS, "sites did not become whole", lambda: settle(fleet, "whole")["whole"] == fleet.sites)


def storms(cluster):
    for number in (1, 2, 3):
        cluster.board(number).options = ["--set", "sites.threads=3"]
    cluster.make(3)
    boards = list(cluster.boards.values())
    names = [f"site-{number:03d}" for number in range(1, SITES + 1)]
    import_sites(cluster, names)
    tls = enroll(cluster, names)
    fleet = Fleet(cluster, names, [board.sites_address for board in boards], tls,
                  options=["--in-flight", "0", "--sources", "100"])

    with Watch(boards[0]) as watch:
        fleet.tell("attach")
        settle(fleet, "all attach at once")
    seen = watch.result()
    if seen["elections"] != 0 or seen["unanswered"] != 0:
        raise Failure(f"while all attached: {seen} {watch.failed[:2]}")
    expect("sessions of the three boards", sum(sessions_of(board) for board in boards), 2 * SITES)
    if min(sessions_of(board) for board in boards) == 0:
        raise Failure("a board has no session")

    fleet.tell("split 100")
    expect("sites with one side", settle(fleet, "all split at once")["one-side"], SITES)
    holders = winners(fleet)
    leader = cluster.leader()
    for board in boards:
        board.kill()
    # What was told is on the disks of two boards of three: any two have it, also those that did not lead.
    rest = [board for board in boards if board is not leader]
    for board in rest:
        board.start()
    cluster.leader(rest[0])
    held = grants(rest[0])
    for name, node in holders.items():
        if name not in held or held[name][2] != [node]:
            raise Failure(f"{name}: node {node} had the vote, the log says {held.get(name)}")
    leader.start()
    settle(fleet, "all came back")
    fleet.tell("heal")
    everything_whole(fleet)

    leader = cluster.leader()
    victim = next(board for board in boards if board is not leader)
    victim.kill()
    rest = [board for board in boards if board is not victim]
    wait_for(SECONDS, "the sessions of the killed board are not at the others",
             lambda: sum(sessions_of(board) for board in rest) == 2 * SITES)
    everything_whole(fleet)
    numbers = fleet.numbers()
    expect("nodes that ended for good", numbers["nodes-ended"], 0)
    expect("violations", numbers["violations"], 0)
    fleet.end()


if __name__ == "__main__":
    main([storms])
