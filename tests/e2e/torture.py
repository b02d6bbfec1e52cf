#!/usr/bin/env python3
"""Boards killed with -9 and restarted at random under a load of writes through all of them: at the
end every acknowledged write is on every board, in one order. `torture.py BIN [--kills N] [--seed S]`."""

import argparse
import http.client
import json
import os
import random
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from boards import Cluster, Failure, wait_for


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("board", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def create_site(board, name):
    """True if the board acknowledged the write; False if it did not (it may have happened)."""
    connection = UnixConnection(board.socket, 12)
    try:
        connection.request("POST", "/v1/sites", json.dumps({"name": name}),
                           {"Content-Type": "application/json", "Idempotency-Key": name})
        answer = connection.getresponse()
        answer.read()
        return answer.status == 201
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Writer(threading.Thread):
    def __init__(self, board, stop):
        super().__init__(daemon=True)
        self.board = board
        self.stopped = stop
        self.acknowledged = []
        self.tried = 0

    def run(self):
        while not self.stopped.is_set():
            self.tried += 1
            name = f"w{self.board.number}-{self.tried}"
            if create_site(self.board, name):
                self.acknowledged.append(name)
                if len(self.acknowledged) > 2000:
                    time.sleep(0.1)  # a cluster holds 20,000 sites
            else:
                time.sleep(0.05)


def created_sites(board):
    """Names of created sites in the order of the board's own event log, which keeps the newest 10,000."""
    names = []
    after = 0
    while True:
        code, text = board.get(f"/v1/events?after={after}&limit=1000")
        if code != 200:
            raise Failure(f"{board.name} does not list events: {code} {text}")
        items = json.loads(text).get("items", [])
        if not items:
            return names
        names += [event["site"] for event in items if event["type"] == "site.created"]
        after = items[-1]["seq"]


def site_names(board):
    return [site["name"] for site in board.json("site", "list", "--prefix", "w")["items"]]


def torture(cluster, kills, seed):
    dice = random.Random(seed)
    print(f"seed {seed}, {kills} kills", flush=True)
    cluster.make(3)
    stop = threading.Event()
    writers = [Writer(board, stop) for board in cluster.boards.values()]
    for writer in writers:
        writer.start()
    for kill in range(kills):
        time.sleep(dice.uniform(0.1, 1.2))
        victims = dice.sample(sorted(cluster.boards), 2 if dice.random() < 0.15 else 1)
        for number in victims:
            cluster.boards[number].kill()
        time.sleep(dice.uniform(0, 1.0))
        for number in victims:
            cluster.boards[number].start(wait=False)
        if (kill + 1) % 10 == 0:
            print(f"  {kill + 1} kills, {sum(len(w.acknowledged) for w in writers)} writes acknowledged",
                  flush=True)
    time.sleep(1)
    stop.set()
    for writer in writers:
        writer.join()
    acknowledged = [name for writer in writers for name in writer.acknowledged]
    if len(acknowledged) < kills:
        raise Failure(f"only {len(acknowledged)} writes were acknowledged: the cluster hardly worked")
    for board in cluster.boards.values():
        wait_for(30, f"{board.name} does not come back", lambda: board.status() is not None)
    cluster.any().ctl("site", "create", "last")

    def same():
        lists = [created_sites(board) for board in cluster.boards.values()]
        return lists if all(names and names[-1] == "last" and names == lists[0] for names in lists) else None

    lists = wait_for(30, "the boards' histories differ", same)
    present = [site_names(board) for board in cluster.boards.values()]
    if any(names != present[0] for names in present):
        raise Failure("the boards hold different sites")
    missing = set(acknowledged) - set(present[0])
    if missing:
        raise Failure(f"{len(missing)} acknowledged writes are lost, {sorted(missing)[0]} among them")
    if len(set(lists[0])) != len(lists[0]):
        raise Failure("a write happened twice")
    print(f"{len(acknowledged)} acknowledged writes are on every board, in one order", flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    with Cluster(given.bin) as cluster:
        torture(cluster, given.kills, given.seed)
