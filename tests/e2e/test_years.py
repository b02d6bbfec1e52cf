#!/usr/bin/env python3
"""What happens to a cluster in the course of the years, by the commands that are meant for it."""

import os
import shutil
import sys
import threading
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


def grant_epochs(board):
    return {site["name"]: int(site.get("status", {}).get("grant", {}).get("epoch", 0))
            for site in board.json("site", "list")["items"]}


def settled_cluster(board):
    """After a restore: until votes are given again."""
    wait_for(60, "votes are not given again", lambda: "holdMs" not in board.json("cluster", "status"))


def write_sites(board, stop, written):
    number = 0
    while not stop.is_set():
        number += 1
        if board.ctl("site", "create", f"load-{number:04d}", check=False).returncode == 0:
            written.append(f"load-{number:04d}")


def backup_and_restore(cluster):
    cluster.make(3)
    nodes = attached_sites(cluster, 10)
    first = cluster.board(1)
    path = os.path.join(cluster.dir, "b.backup")
    stop = threading.Event()
    written = []
    writer = threading.Thread(target=write_sites, args=(cluster.board(2), stop, written))
    writer.start()
    try:
        wait_for(20, "nothing is written", lambda: len(written) > 20)
        before = list(written)
        first.ctl("cluster", "backup", path)
        after = len(written)
    finally:
        stop.set()
        writer.join()
    if os.stat(path).st_mode & 0o777 != 0o600:
        raise Failure("others may read the backup")
    done = first.ctl("cluster", "backup", path, check=False)
    if done.returncode != 2 or "--force" not in done.stderr:
        raise Failure(f"a backup was overwritten: {done.stderr}")
    epochs = grant_epochs(first)

    # What is refused, and changes nothing.
    fresh = cluster.board(4, host=first.host)
    for board in list(cluster.boards.values())[:3]:
        board.kill()
    fresh.start()
    with open(path, "rb") as file:
        good = file.read()

    def refused(data, word, *options):
        bad = os.path.join(cluster.dir, "bad.backup")
        with open(bad, "wb") as file:
            file.write(data)
        done = fresh.ctl("cluster", "restore", bad, "--yes", *options, check=False)
        if done.returncode == 0 or word not in done.stderr:
            raise Failure(f"expected \"{word}\", got {done.returncode}: {done.stderr}")
        code, text = fresh.send("POST", "/v1/cluster:restore?name=" + (options[1] if options else ""), data)
        if code == 200 or word not in text:
            raise Failure(f"the board itself: expected \"{word}\", got {code}: {text}")
        if fresh.local()["state"] != "new" or os.path.exists(os.path.join(fresh.data, "identity.json")):
            raise Failure("a refused restore left something behind")

    refused(good[:-1], "damaged or cut off")
    refused(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:], "damaged")
    refused(b"name\noffice-1\n", "not a backup")
    refused(good, "is of cluster", "--cluster-name", "other")
    done = fresh.ctl("cluster", "restore", path, check=False)
    if done.returncode != 2 or "--yes" not in done.stderr:
        raise Failure(f"restored without being asked: {done.stderr}")

    fresh.ctl("cluster", "restore", path, "--yes")
    done = fresh.ctl("cluster", "restore", path, "--yes", check=False)
    if done.returncode == 0 or "already in a cluster" not in done.stderr:
        raise Failure(f"restored twice: {done.stderr}")
    names = [name for name in sorted(grant_epochs(fresh)) if name.startswith("load-")]
    if names != sorted(written)[:len(names)] or not len(before) <= len(names) <= after + 1:
        raise Failure(f"the backup is of no moment: {len(before)} before, {after} after, {len(names)} in it")
    settled_cluster(fresh)
    wait_for(60, "the sites' nodes do not come back", lambda: nodes.numbers()["nodes-attached"] == 20)
    nodes.settle(60)
    new = grant_epochs(fresh)
    for name, epoch in epochs.items():
        if epoch != 0 and new[name] < max(epochs.values()) + (1 << 40):
            raise Failure(f"site {name}: epoch {epoch} of before, {new[name]} now")
    if [item["name"] for item in fresh.json("node", "list")["items"]] != ["board4"]:
        raise Failure("old boards are in the new history")
    # An old board comes back: it is of another cluster, and cannot join with what it has.
    old = cluster.board(2)
    old.start()
    time.sleep(2)
    if old.local().get("lease"):
        raise Failure("an old board alone has a lease")
    old.kill()
    shutil.rmtree(old.data)
    old.start().ctl("cluster", "join", fresh.address, "--token", cluster.token(fresh))
    wait_for(10, "the second board lacks sites", lambda: len(grant_epochs(old)) == len(new))
    if nodes.numbers()["violations"] != 0:
        raise Failure("two sides had the vote")
    nodes.end()


def recover_from_a_lost_majority(cluster):
    cluster.make(3)
    nodes = attached_sites(cluster, 10)
    first = cluster.board(1)
    done = first.ctl("cluster", "recover", "--cluster-name", "lab", check=False)
    if done.returncode == 0 or "has a leader" not in done.stderr:
        raise Failure(f"recovered from nothing: {done.stderr}")
    epochs = grant_epochs(first)
    first.ctl("site", "create", "last")
    survivor = cluster.board(2)
    cluster.board(1).kill()
    cluster.board(3).kill()
    # Started anew without the others it does not even know what was agreed upon.
    survivor.stop()
    survivor.start()
    time.sleep(11)
    plan = survivor.ctl("cluster", "recover", "--dry-run").stderr
    if "What may be lost" not in plan or "board1 board3" not in plan:
        raise Failure(f"the risk is not spelled out: {plan}")
    done = survivor.ctl("cluster", "recover", check=False, stdin="")
    if done.returncode != 2 or "--cluster-name" not in done.stderr:
        raise Failure(f"recovered without the name: {done.returncode} {done.stderr}")
    done = survivor.ctl("cluster", "recover", "--cluster-name", "labor", check=False)
    if done.returncode == 0 or "not the name" not in done.stderr or survivor.local().get("lease"):
        raise Failure(f"recovered with a wrong name: {done.stderr}")
    survivor.ctl("cluster", "recover", "--cluster-name", "lab")
    settled_cluster(survivor)
    names = sorted(grant_epochs(survivor))
    if "last" not in names or len(names) != 11:
        raise Failure(f"an acknowledged write is gone: {names}")
    wait_for(60, "the sites' nodes do not come back", lambda: nodes.numbers()["nodes-attached"] == 20)
    nodes.settle(60)
    new = grant_epochs(survivor)
    if any(new[name] <= epoch for name, epoch in epochs.items() if epoch):
        raise Failure(f"epochs did not jump: {epochs} {new}")
    if not [name for name in os.listdir(survivor.data) if name.endswith(".backup")]:
        raise Failure("no backup of the state before")
    # It lives through a restart, and grows again.
    survivor.stop()
    survivor.start()
    fresh = cluster.board(4).start()
    fresh.ctl("cluster", "join", survivor.address, "--token", cluster.token(survivor))
    # One old board alone is nothing, and not let in.
    old = cluster.board(1)
    old.start()
    time.sleep(3)
    if old.local().get("lease"):
        raise Failure("the old board serves")
    if nodes.numbers()["violations"] != 0:
        raise Failure("two sides had the vote")
    nodes.end()


if __name__ == "__main__":
    main([replace_a_dead_board, backup_and_restore, recover_from_a_lost_majority, drain_the_leader,
          drain_spares_who_needs_the_vote])
