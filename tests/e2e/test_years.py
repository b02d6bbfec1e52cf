#!/usr/bin/env python3
"""What happens to a cluster in the course of the years, by the commands that are meant for it."""

import os
import sys
import time

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


def replace_a_dead_board(cluster):
    cluster.make(3)
    nodes = attached_sites(cluster, 10)
    first = cluster.board(1)
    dead = cluster.board(3)
    done = first.ctl("node", "replace", "board3", check=False)
    if done.returncode == 0 or "alive" not in done.stderr:
        raise Failure(f"a living board could be replaced: {done.stderr}")
    token = None
    dead.kill()

    def offered():
        done = first.ctl("node", "replace", "board3", "-o", "name", check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    token = wait_for(20, "the dead board cannot be replaced", offered)
    # Another machine with the dead one's address: an empty directory and a name of its own.
    fresh = cluster.board(4, host=dead.host)
    fresh.start()
    fresh.ctl("cluster", "join", first.address, "--token", token)
    names = sorted((item["name"], item["role"]) for item in first.json("node", "list")["items"])
    if names != [("board1", "voter"), ("board2", "voter"), ("board3", "voter")]:
        raise Failure(f"the boards are {names}")
    if fresh.local()["nodeName"] != "board3" or node(first, "board3")["id"] in ("1", "2", "3"):
        raise Failure(f"the new board is {fresh.local()}")
    done = cluster.board(5).start().ctl("cluster", "join", first.address, "--token", token, check=False)
    if done.returncode == 0 or "used" not in done.stderr:
        raise Failure(f"the place was given twice: {done.stderr}")
    cluster.board(5).kill()
    # It counts: one of the others may fail now, and the new one has all sites.
    cluster.board(2).kill()
    wait_for(20, "the replaced cluster does not survive a board",
             lambda: first.ctl("site", "create", "later", check=False).returncode == 0)
    wait_for(10, "the new board lacks sites", lambda: len(fresh.json("site", "list")["items"]) == 11)
    wait_for(60, "the sites' nodes are not all attached", lambda: nodes.numbers()["nodes-attached"] == 20)
    nodes.settle(60)
    if nodes.numbers()["violations"] != 0:
        raise Failure("two sides had the vote")
    nodes.end()
    # The dead one comes back from the grave: nobody speaks to it.
    fresh.stop()
    dead.start(wait=False)
    time.sleep(3)
    local = dead.local()
    if local is None or local.get("lease") or local["state"] == "serving":
        raise Failure(f"the dead board serves again: {local}")


if __name__ == "__main__":
    main([replace_a_dead_board, drain_the_leader, drain_spares_who_needs_the_vote])
