#!/usr/bin/env python3
"""Membership of the cluster: grow, remove, refuse what must be refused."""

import os
import select
import shutil
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from boards import Failure, main, wait_for


def voters(board):
    return sorted(node["name"] for node in board.json("node", "list")["items"]
                  if node.get("role") == "voter")


def nodes(board):
    return {node["name"]: node.get("role", "joining") for node in board.json("node", "list")["items"]}


def grow_one_to_five(cluster):
    cluster.make(3)
    for number in (4, 5):
        cluster.join(number)
    for board in cluster.boards.values():
        names = wait_for(20, f"{board.name} does not know five voters",
                         lambda: voters(board) if len(voters(board)) == 5 else None)
        if names != [f"board{n}" for n in range(1, 6)]:
            raise Failure(f"{board.name} sees {names}")
    facts_of_all(cluster)


def facts_of_all(cluster):
    """Every board says what it is, to whoever asks whichever of them; the leader after it has changed, too."""
    def missing(board):
        return [node["name"] for node in board.json("node", "list")["items"]
                if "witness but not host" not in node["status"].get("board", {}).get("hostingReason", "")]

    asked = cluster.board(4)
    # This is no Arm board.
    if os.uname().machine == "x86_64":
        wait_for(30, "not every board has said what it is", lambda: not missing(asked))
        asked.ctl("cluster", "transfer")
        wait_for(30, "not every board has told the new leader", lambda: not missing(asked))
    shown = asked.ctl("node", "show", "board5").stdout
    if "Hosting: " not in shown or "Kernel:  " not in shown:
        raise Failure(f"node show says: {shown}")


def begins_anew(cluster):
    """The run directory outlives a daemon that is killed: what is no board any more believes nothing of it."""
    board = cluster.make(1).board(1)
    if not os.path.exists(os.path.join(board.run, "model.db")):
        raise Failure("no model is in the run directory")
    board.kill()
    shutil.rmtree(board.data)
    board.start()
    left = [name for name in os.listdir(board.run) if name.startswith("model.db")]
    if board.local()["state"] != "new" or left:
        raise Failure(f"{board.local()}, and there is {left}")
    board.ctl("cluster", "init", "--name", "other")
    names = [event["type"] for event in board.json("event", "list")["items"]]
    if names.count("cluster.created") != 1:
        raise Failure(f"events of another cluster: {names}")


def remove_the_leader(cluster):
    cluster.make(3)
    cluster.board(1).ctl("site", "create", "before")
    leader = cluster.leader()
    others = [board for board in cluster.boards.values() if board is not leader]
    others[0].ctl("cluster", "remove", leader.name, "--yes")
    wait_for(20, "the removed leader still leads",
             lambda: cluster.leader(through=others[0]) is not leader)
    wait_for(20, "the removed board is still listed", lambda: leader.name not in voters(others[0]))
    others[1].ctl("site", "create", "after")
    names = [site["name"] for site in others[0].json("site", "list")["items"]]
    if names != ["after", "before"]:
        raise Failure(f"sites are {names}")
    local = wait_for(20, "the removed board does not say so",
                     lambda: leader.local() if leader.local() and leader.local()["state"] == "failed" else None)
    if "removed" not in local["detail"]:
        raise Failure(f"the removed board says {local}")


def refused_joins(cluster):
    cluster.board(1).start().ctl("cluster", "init", "--name", "lab")
    stranger = cluster.board(9).start()
    stranger.ctl("cluster", "init", "--name", "other")
    board = cluster.board(2).start()
    address = cluster.board(1).address

    def refused(token, words, where=address, options=()):
        done = board.ctl("cluster", "join", where, "--token", token, *options, check=False)
        if done.returncode == 0:
            raise Failure(f"joined with a token that is {words}")
        if not any(word in done.stderr for word in words):
            raise Failure(f"expected one of {words}, got: {done.stderr.strip()}")
        if board.local()["state"] != "new":
            raise Failure("a refused join left something behind")

    first = cluster.board(1)
    good = cluster.token(first)
    refused("nonsense", ["not a token"])
    refused(good[:-1] + ("0" if good[-1] != "0" else "1"), ["another cluster"])
    refused(cluster.token(stranger), ["another cluster"])
    parts = good.split(".")
    parts[2] = "0" * 64
    refused(".".join(parts), ["token"])
    short = first.json("token", "create", "--role", "node", "--ttl", "1s")["secret"]
    time.sleep(1.2)
    refused(short, ["expired"])
    viewer = first.json("token", "create", "--role", "viewer", "--ttl", "1h")["secret"]
    refused(viewer, ["role", "join"])
    revoked = first.json("token", "create", "--role", "node", "--ttl", "1h")
    first.ctl("token", "revoke", revoked["token"]["id"])
    refused(revoked["secret"], ["revoked"])
    refused(good, ["reach", "connect", "refused"], where="127.0.0.1:9")
    refused(good, ["cannot connect to 127.0.0.1:1;"], options=("--advertise", "127.0.0.1:1"))
    once = first.json("token", "create", "--role", "node", "--ttl", "1h", "--uses", "1")["secret"]
    board.ctl("cluster", "join", address, "--token", once)
    third = cluster.board(3).start()
    done = third.ctl("cluster", "join", address, "--token", once, check=False)
    if done.returncode == 0 or "used" not in done.stderr:
        raise Failure(f"a used token: {done.stderr.strip()}")


def a_ghost_hinders_nobody(cluster):
    """A board that is admitted but never reached: others join, the leadership moves, a leader can be drained."""
    cluster.make(2)
    first = cluster.board(1)
    with socket.create_server((f"{cluster.net}.99", 0)) as nobody:  # connections are made, nothing is said
        host, port = nobody.getsockname()
        ghost = cluster.board(3).start()
        asked = threading.Thread(target=ghost.ctl, args=("cluster", "join", first.address, "--token", cluster.token(first),
                                                         "--advertise", f"{host}:{port}"), kwargs={"check": False})
        asked.start()
        try:
            wait_for(20, "the ghost is not admitted", lambda: nodes(first).get("board3") == "joining")
            time.sleep(2)  # the leader tries to reach it
            cluster.join(4)
            leader = cluster.leader()
            leader.ctl("cluster", "transfer")
            wait_for(20, "the leadership was not handed over", lambda: cluster.leader() is not leader)
            leader = cluster.leader()
            leader.ctl("node", "drain", leader.name)
            wait_for(20, "a drained leader leads on", lambda: cluster.leader() is not leader)
            leader.ctl("node", "undrain", leader.name)
            stranger = cluster.board(5).start()
            done = stranger.ctl("cluster", "join", first.address, "--token", cluster.token(first),
                                "--advertise", cluster.board(4).address, check=False)
            if done.returncode == 0 or "board4" not in done.stderr or "--advertise" not in done.stderr:
                raise Failure(f"an address that is in use: {done.stderr.strip()}")
            if nodes(first).get("board3") != "joining":
                raise Failure(f"the ghost has become something else: {nodes(first)}")
            first.ctl("cluster", "remove", "board3", "--yes")
            cluster.join(5)
        finally:
            ghost.kill()
            asked.join()
    if voters(first) != ["board1", "board2", "board4", "board5"]:
        raise Failure(f"the voters are {voters(first)}")


def join_under_load(cluster):
    cluster.make(1)
    first = cluster.board(1)
    stop = threading.Event()
    written = []
    errors = []

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            done = first.ctl("site", "create", f"load-{number}", check=False)
            if done.returncode == 0:
                written.append(f"load-{number}")
            else:
                errors.append(done.stderr.strip())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        cluster.join(2)
        cluster.join(3)
    finally:
        stop.set()
        writer.join()
    if errors:
        raise Failure(f"{len(errors)} writes failed, first: {errors[0]}")
    third = cluster.board(3)
    missing = wait_for(10, "the third board does not have every write",
                       lambda: "none" if not set(written) - {site["name"] for site in
                                                             third.json("site", "list")["items"]} else None)
    assert missing == "none"


class Flood:
    """Keeps `count` connections open that never say a word, in turn from each of `hosts`, and opens one anew as
    soon as it is closed."""

    def __init__(self, board, hosts, count):
        self.to = (board.host, 7443)
        self.hosts = hosts
        self.count = count
        self.open = {}
        self.stopped = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def dial(self, number):
        s = socket.socket()
        s.bind((self.hosts[number % len(self.hosts)], 0))
        s.setblocking(False)
        s.connect_ex(self.to)
        self.open[s] = number
        self.poll.register(s, select.POLLIN)

    def run(self):
        self.poll = select.poll()
        for number in range(self.count):
            self.dial(number)
        while not self.stopped:
            fds = {s.fileno(): s for s in self.open}
            for fd, _ in self.poll.poll(50):
                number = self.open.pop(fds[fd])
                self.poll.unregister(fd)
                fds[fd].close()
                self.dial(number)
        for s in self.open:
            s.close()

    def stop(self):
        self.stopped = True
        self.thread.join()


def a_flood_at_the_door(cluster):
    """Somebody takes every place at the leader's port for the API and the boards, without a word. A follower that
    starts anew is in the cluster as if nothing were: it has a place and a turn of its own."""
    for number in (1, 2, 3):
        cluster.board(number).options = ["--set", "sites.sessions-max=100"]
    cluster.make(3)
    leader = cluster.leader()
    follower = next(board for board in cluster.boards.values() if board is not leader)

    def reachable():
        return {node["name"]: node["status"].get("reachable", False)
                for node in leader.json("node", "list")["items"]}[follower.name]

    wait_for(10, "the follower is not there", reachable)
    flood = Flood(leader, [f"{cluster.net}.{n}" for n in (201, 202)], 700)
    try:
        wait_for(10, f"the flood is not refused: {leader.last_log()}",
                 lambda: "all 372 places are taken" in open(leader.log, errors="replace").read())
        follower.kill()
        wait_for(10, "the follower is not missed", lambda: not reachable())
        follower.start()
        wait_for(10, f"the follower does not come back: {follower.last_log()}", reachable)
    finally:
        flood.stop()


if __name__ == "__main__":
    main([grow_one_to_five, begins_anew, remove_the_leader, refused_joins, a_ghost_hinders_nobody, join_under_load,
          a_flood_at_the_door])
