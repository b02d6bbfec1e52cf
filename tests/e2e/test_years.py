#!/usr/bin/env python3
"""What happens to a cluster in the course of the years, by the commands that are meant for it."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from boards import Failure, main, wait_for
from demo import SiteNodes

PREFIX = "office-"


def attached_sites(cluster, count):
    """`count` sites of two nodes each, spread over the boards and all whole."""
    path = os.path.join(cluster.dir, "sites.csv")
    with open(path, "w") as file:
        file.write("name\n" + "".join(f"{PREFIX}{number:04d}\n" for number in range(1, count + 1)))
    cluster.any().ctl("site", "import", path)
    nodes = SiteNodes(cluster, count, [])
    nodes.tell("attach")
    nodes.settle(60)
    return nodes


def node(board, name):
    return next(item for item in board.json("node", "list")["items"] if item["name"] == name)


def sessions(board, name):
    return node(board, name).get("status", {}).get("sessions", 0)


def drain_the_leader(cluster):
    cluster.make(3)
    nodes = attached_sites(cluster, 30)
    leader = cluster.leader()
    other = next(board for board in cluster.boards.values() if board is not leader)
    if sessions(other, leader.name) == 0:
        raise Failure("no site node is attached to the board that is to be drained")
    other.ctl("node", "drain", leader.name, "--timeout", "60s")
    if sessions(other, leader.name) != 0 or cluster.leader(through=other) is leader:
        raise Failure("the drain returned too early")
    wait_for(60, "not all nodes attached elsewhere", lambda: nodes.numbers()["nodes-attached"] == 60)
    nodes.settle(60)
    if sessions(other, leader.name) != 0:
        raise Failure("site nodes came back to the drained board")
    if "drained" not in other.ctl("node", "list").stdout or "1 drained" not in other.ctl("status").stdout:
        raise Failure("node list or status do not show that a board is drained")
    if leader.get("/readyz") != (503, "drained: this board takes no site nodes\n"):
        raise Failure(f"a drained board says {leader.get('/readyz')}")
    # Through a restart.
    leader.stop()
    leader.start()
    wait_for(20, "the drained board does not come back",
             lambda: node(other, leader.name).get("status", {}).get("reachable"))
    wait_for(20, "the board has forgotten that it is drained", lambda: leader.get("/readyz")[0] == 503)
    if sessions(other, leader.name) != 0:
        raise Failure("the drained board took site nodes after its restart")
    # The others cannot all be drained.
    rest = [board for board in cluster.boards.values() if board is not leader]
    rest[0].ctl("node", "drain", rest[1].name, "--timeout", "60s")
    done = rest[0].ctl("node", "drain", rest[0].name, check=False)
    if done.returncode == 0 or "no other board" not in done.stderr:
        raise Failure(f"the last board was drained: {done.stderr}")
    done = rest[0].ctl("cluster", "transfer", leader.name, check=False)
    if done.returncode == 0 or "drained" not in done.stderr:
        raise Failure(f"a drained board was made the leader: {done.stderr}")
    leader.ctl("node", "undrain", leader.name)
    wait_for(20, "the board does not serve again", lambda: leader.get("/readyz")[0] == 200)
    if nodes.numbers()["violations"] != 0:
        raise Failure("two sides had the vote")
    nodes.end()


def drain_spares_who_needs_the_vote(cluster):
    cluster.make(3)
    nodes = attached_sites(cluster, 12)
    nodes.tell("split 100")
    nodes.settle(60)
    board = next(board for board in cluster.boards.values() if sessions(cluster.board(1), board.name) > 0)
    before = sessions(cluster.board(1), board.name)
    done = cluster.board(1).ctl("node", "drain", board.name, "--timeout", "3s", check=False)
    if done.returncode != 5 or "need the vote" not in done.stderr:
        raise Failure(f"drained though every site needs the vote: {done.returncode} {done.stderr}")
    if sessions(cluster.board(1), board.name) != before:
        raise Failure("a node that needs the vote was sent away")
    nodes.tell("heal")
    wait_for(60, "the board keeps nodes of sites that are whole again",
             lambda: sessions(cluster.board(1), board.name) == 0)
    nodes.settle(60)
    nodes.end()


if __name__ == "__main__":
    main([drain_the_leader, drain_spares_who_needs_the_vote])
