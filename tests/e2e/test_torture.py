#!/usr/bin/env python3
"""The short form of torture.py, and what a bad disk does to one board."""

import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from boards import Failure, main, wait_for
from torture import torture


def kills_under_load(cluster):
    torture(cluster, 12, 1)


def write_some(board, prefix, count):
    for number in range(count):
        board.ctl("site", "create", f"{prefix}-{number}")



def names_after(board):
    done = board.ctl("site", "list", "--prefix", "after", "-o", "json", check=False)
    return {site["name"] for site in json.loads(done.stdout)["items"]} if done.returncode == 0 else None


def damaged(cluster, damage):
    """Board 3 finds its log damaged: it says so and does not serve; the others go on."""
    cluster.make(3)
    write_some(cluster.board(1), "early", 20)
    board = cluster.board(3)
    wait_for(10, "board3 is behind", lambda: len(board.json("site", "list")["items"]) == 20)
    board.stop()
    raft = os.path.join(board.data, "raft")
    segments = sorted(name for name in os.listdir(raft) if name[0].isdigit())
    if not segments:
        raise Failure(f"no closed segment in {os.listdir(raft)}")
    damage(os.path.join(raft, segments[-1]))
    board.start(wait=False)
    code = wait_for(20, "board3 runs on a damaged log", lambda: board.process.poll())
    if code != 1:
        raise Failure(f"board3 ended with {code}")
    if segments[-1].split("-")[0].lstrip("0") not in board.last_log() and raft not in board.last_log():
        raise Failure(f"board3 does not name the damaged file: {board.last_log()}")
    write_some(cluster.board(1), "late", 5)
    wait_for(10, "the others lost something",
             lambda: len(cluster.board(2).json("site", "list")["items"]) == 25)


def bit_flipped(cluster):
    def flip(path):
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 0x10]))
    damaged(cluster, flip)


def truncated(cluster):
    damaged(cluster, lambda path: os.truncate(path, os.path.getsize(path) // 2))


def disk_full(cluster):
    """Board 3's log is on a small disk that fills up: it says so, the others go on."""
    cluster.make(2)
    board = cluster.board(3)
    os.makedirs(board.data)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,mode=700", "tmpfs", board.data], check=True)
    cluster.cleanups.append(lambda: subprocess.run(["umount", "-l", board.data], check=False))
    cluster.join(3)
    with open(os.path.join(board.data, "ballast"), "wb") as ballast:
        try:
            while True:
                ballast.write(b"\0" * 65536)
                ballast.flush()
        except OSError:
            pass
    # More than the log has set aside: 14 long labels make some 10 MB of each import.
    columns = ",".join(["name"] + [f"label.l{n}" for n in range(14)])
    for letter in "abcd":
        rows = "\n".join(",".join([f"fill-{n}"] + [letter * 60] * 14) for n in range(9000))
        cluster.board(1).ctl("site", "import", "-", "--quiet", stdin=f"{columns}\n{rows}\n", timeout=120)
    write_some(cluster.board(2), "after", 3)
    after = names_after(cluster.board(2))
    if after != {"after-0", "after-1", "after-2"}:
        raise Failure("the others lost a write")
    time.sleep(1)
    if board.running() and "space" not in open(board.log, errors="replace").read():
        raise Failure(f"board3 does not say that its disk is full: {board.last_log()}")
    os.unlink(os.path.join(board.data, "ballast"))
    if board.running():
        board.stop()
    board.start()
    wait_for(30, "board3 does not catch up when its disk has room again",
             lambda: names_after(board) == after)


if __name__ == "__main__":
    main([kills_under_load, bit_flipped, truncated, disk_full])
