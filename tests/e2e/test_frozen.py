#!/usr/bin/env python3
"""A board that stands still for longer than its lease, and a cluster that is stopped as a whole: no
site ever has two sides."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from boards import Failure, main, wait_for
from demo import SiteNodes, certificates

SITES = 20


def attached(cluster):
    cluster.make(3)
    first = cluster.board(1)
    first.ctl("site", "import", "-", "--quiet",
              stdin="name\n" + "".join(f"office-{n:04d}\n" for n in range(1, SITES + 1)))
    out = os.path.join(cluster.dir, "qnet")
    os.makedirs(out)
    first.ctl("site", "enroll", "office-0001", "--out", out)
    nodes = SiteNodes(cluster, SITES, certificates(cluster, out))
    cluster.cleanups.append(nodes.process.kill)
    nodes.tell("attach")
    settled(nodes, "whole", SITES)
    return nodes


def settled(nodes, state, count):
    lines = nodes.tell("wait 40")
    numbers = nodes.numbers()
    if numbers[state] != count or numbers["violations"] != 0:
        raise Failure(f"{count} sites should be {state}: {lines} {numbers}")


def lines_after(board, place):
    with open(board.log, errors="replace") as log:
        log.seek(place)
        return log.read().splitlines()


def a_frozen_board(cluster, choose):
    nodes = attached(cluster)
    leader = cluster.leader()
    board = leader if choose == "leader" else next(b for b in cluster.boards.values() if b is not leader)
    place = os.path.getsize(board.log)
    lost = nodes.numbers()["connections-lost"]
    board.signal(signal.SIGSTOP)
    began = time.monotonic()
    # Its sites split while it sleeps: an answer that it gave from memory would be a second side.
    time.sleep(1)
    nodes.tell("split 100")
    nodes.tell("wait 5")
    time.sleep(max(0, began + 6 - time.monotonic()))
    board.signal(signal.SIGCONT)
    wait_for(10, f"{board.name} does not say that it lost its lease: {board.last_log()}",
             lambda: any("lease-lost" in line for line in lines_after(board, place)) and
             any("sites-closed" in line for line in lines_after(board, place)))
    settled(nodes, "one-side", SITES)
    if nodes.numbers()["connections-lost"] == lost:
        raise Failure(f"{board.name} has kept its sessions")
    nodes.tell("heal")
    settled(nodes, "whole", SITES)
    nodes.end()
    if nodes.process.returncode != 0:
        raise Failure("a promise was broken")


def a_frozen_follower(cluster):
    a_frozen_board(cluster, "follower")


def a_frozen_leader(cluster):
    a_frozen_board(cluster, "leader")


def the_whole_cluster(cluster):
    """All boards are ended in order and started again: sites whose nodes see each other need no
    witness meanwhile, and all come back."""
    nodes = attached(cluster)
    split = int(nodes.tell("split 30")[-1].split()[1])
    settled(nodes, "one-side", split)
    for board in cluster.boards.values():
        board.signal(signal.SIGTERM)
    for board in cluster.boards.values():
        if board.process.wait(30) != 0:
            raise Failure(f"{board.name} ended with {board.process.returncode}")
    for board in cluster.boards.values():
        board.start(wait=False)
    cluster.leader()
    settled(nodes, "one-side", split)
    nodes.tell("heal")
    settled(nodes, "whole", SITES)
    nodes.end()
    if nodes.process.returncode != 0:
        raise Failure("a promise was broken")


if __name__ == "__main__":
    main([a_frozen_follower, a_frozen_leader, the_whole_cluster])
