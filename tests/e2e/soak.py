#!/usr/bin/env python3
"""`soak.py BIN [--minutes N] [--sites N] [--seed S]`: three boards and two thousand two-node sites with client
certificates, for an hour. All that befalls a fleet happens at random: shares of it split and heal, all connections are
reset, sites are added and deleted, get new certificates and lose the old ones, while boards are killed, cut off
from everything, frozen and slowed.

At the end, and all the time: no site had two sides with the vote; every acknowledged write is on every board;
the fleet comes to rest whole; and the board that was never killed has grown neither in memory nor in descriptors
since the first sixth of the time. A target, not a part of CI (`make soak`).

The boards are in a network name space of their own, one user each: a packet filter by user cuts a board off."""

import argparse
import http.client
import json
import os
import queue
import random
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from boards import Cluster, Failure, wait_for
from enroll_all import request_for
from load import Load, enroll, import_sites, raise_files_limit, rss_kib
from torture import UnixConnection

FIRST_USER = 59100  # of board 1; nobody's
STAYS = 3           # the board whose growth is looked at: it is cut off, frozen and slowed, but not killed
SETTLE_S = 120
GROWTH_KIB = 3072   # what allocators and pools may still round up to
GROWTH_FILES = 16
SESSION_KIB = 18    # a session with a client certificate
FEW = 700           # sessions whose memory is too little to hide growth


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def call(board, method, path, body=None, key=None):
    """Status and answer; (0, None): no word."""
    connection = UnixConnection(board.socket, 15)
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    except (OSError, ValueError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


class Clerk(threading.Thread):
    """Adds and deletes sites of its own, and gives sites of the fleet new certificates."""

    def __init__(self, cluster, fleet, names, directory, seed):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.fleet = fleet
        self.names = names
        self.directory = directory
        self.random = random.Random(seed)
        self.over = threading.Event()
        self.there = {}        # name: True it must be there, False it must not, None: not known
        self.recertified = self.added = self.deleted = 0
        self.serials = {}
        self.orders = queue.Queue()  # numbers of sites that the fleet is to read again
        self.trouble = None

    def board(self):
        return self.random.choice(list(self.cluster.boards.values()))

    def write(self, method, path, body, good, name, there):
        code, _ = call(self.board(), method, path, body)
        if code in good:
            self.there[name] = there
            return True
        self.there[name] = None  # it may have happened
        return False

    def add(self):
        name = f"extra-{self.random.randrange(10**9):09d}"
        self.added += self.write("POST", "/v1/sites", {"name": name}, (201,), name, True)

    def delete(self):
        known = [name for name, there in self.there.items() if there]
        if known:
            name = self.random.choice(known)
            self.deleted += self.write("DELETE", f"/v1/sites/{name}", None, (200, 204), name, False)

    def recertify(self):
        """A new one; the old one is revoked once the site has the new one."""
        number = self.random.randrange(len(self.names))
        name = self.names[number]
        key = os.path.join(self.directory, "key.pem")
        code, answer = call(self.board(), "POST", f"/v1/sites/{name}:enroll", {"csr": request_for("any", key)})
        if code not in (200, 201):
            return
        path = os.path.join(self.directory, f"{name}.crt")
        with open(path + ".new", "w") as file:
            file.write(answer["certificate"])
        os.rename(path + ".new", path)
        self.orders.put(number)
        self.orders.join()
        old, self.serials[name] = self.serials.get(name), answer["serial"]
        if old:
            call(self.board(), "DELETE", f"/v1/certificates/{old}")
        self.recertified += 1

    def run(self):
        try:
            while not self.over.is_set():
                self.random.choice([self.add, self.add, self.delete, self.recertify, self.recertify])()
                self.over.wait(0.3)
        except Exception as error:
            self.trouble = error


class Filter:
    """Which boards are cut off from everything, in our own network name space."""

    def __init__(self):
        self.nft("add table ip soak; add chain ip soak out { type filter hook output priority 0; }")

    @staticmethod
    def nft(text):
        done = subprocess.run(["nft", text], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"nft {text}: {done.stderr.strip()}")

    def only(self, boards):
        self.nft("flush chain ip soak out")
        for board in boards:
            self.nft(f"add rule ip soak out meta skuid {board.user} drop")


class Chaos:
    """What befalls the boards, one thing at a time, so that a majority is there most of the time."""

    def __init__(self, cluster, seed):
        self.boards = list(cluster.boards.values())
        self.filter = Filter()
        self.random = random.Random(seed)
        self.counts = {}

    def once(self):
        what = self.random.choice([self.kill, self.cut, self.freeze, self.slow])
        board = self.random.choice(self.boards)
        if what == self.kill and board.number == STAYS:
            what = self.cut
        self.counts[what.__name__] = self.counts.get(what.__name__, 0) + 1
        what(board)

    def kill(self, board):
        board.kill()
        time.sleep(self.random.uniform(0.5, 8))
        board.start()

    def cut(self, board):
        self.filter.only([board])
        time.sleep(self.random.uniform(1, 12))
        self.filter.only([])

    def freeze(self, board):
        board.signal(19)
        time.sleep(self.random.uniform(0.5, 8))
        board.signal(18)

    def slow(self, board):
        end = time.monotonic() + self.random.uniform(2, 8)
        while time.monotonic() < end:
            board.signal(19)
            time.sleep(0.15)
            board.signal(18)
            time.sleep(0.1)


def sample(board):
    """None: it gives no answer, as it stands still."""
    code, text = board.get("/metrics")
    if code != 200:
        return None

    def total(name):
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)", text, re.M))
    return {"rss_kib": rss_kib([board.pid()]), "allocated_kib": round(total("process_allocated_memory_bytes") / 1024),
            "files": round(total("process_open_fds")), "sessions": round(total("tiebreak_sessions"))}


def fleet_turn(load, luck, clerk):
    """Something for the sites, and what the clerk has asked for."""
    # A reset sends everybody away for seconds: seldom, or nothing else would happen.
    word = luck.choices(["split 5", "split 30", "split 100", "unplug 3", "heal", "reset", ""], [4, 4, 2, 3, 8, 0.3, 4])[0]
    if word:
        load.tell(word)
    while True:
        try:
            number = clerk.orders.get_nowait()
        except queue.Empty:
            break
        load.tell(f"recertify {number}")
        clerk.orders.task_done()
    numbers = load.numbers()
    if numbers["violations"]:
        raise Failure(f"two sides of a site held the vote {numbers['violations']} times: {load.trouble()}")
    if numbers["nodes-ended"]:
        raise Failure(f"{numbers['nodes-ended']} nodes were sent away for good: {load.trouble()}")


def rest(load, what):
    load.tell("heal")

    def whole():
        load.settle(5)
        return load.numbers()["whole"] == load.sites
    wait_for(SETTLE_S, f"{what}: the fleet does not come to rest: {load.trouble()}", whole)


def names_on(board):
    found, page = set(), ""
    while True:
        code, answer = call(board, "GET", "/v1/sites?limit=1000&prefix=extra-" + (f"&page={page}" if page else ""))
        if code != 200:
            raise Failure(f"{board.name} does not list its sites: {code} {answer}")
        found |= {site["name"] for site in answer["items"]}
        page = answer.get("nextPage", "")
        if not page:
            return found


def check_writes(cluster, clerk):
    for board in cluster.boards.values():
        def agrees():
            names = names_on(board)
            lost = [name for name, there in clerk.there.items() if there is True and name not in names]
            back = [name for name, there in clerk.there.items() if there is False and name in names]
            return None if lost or back else True
        wait_for(20, f"{board.name} lacks acknowledged sites, or has deleted ones", agrees)


def check_growth(samples, minutes):
    """The board that stayed, in the last sixth of the time against the second (the first is left out), each at its
    least: open files besides sessions, and memory that is allocated besides what sessions take. What is resident is told
    and not judged: the allocator keeps what sessions of before have left, and a leader has more to hold than others."""
    if minutes < 10:
        return "too short a run to say anything about growth"
    span = minutes * 60
    parts = ([one for at, one in samples if span / 6 <= at < span / 3], [one for at, one in samples if at >= span * 5 / 6])
    files = [min(one["files"] - one["sessions"] for one in part) for part in parts]
    quiet = [[one for one in part if one["sessions"] < FEW] or part for part in parts]
    memory = [min(one["allocated_kib"] - SESSION_KIB * one["sessions"] for one in part) for part in quiet]
    resident = [max(one["rss_kib"] for one in part) for part in parts]
    text = (f"{files[0]} -> {files[1]} files besides sessions, {memory[0]} -> {memory[1]} KiB allocated besides sessions, "
            f"at most {resident[0]} -> {resident[1]} KiB resident")
    if files[1] > files[0] + GROWTH_FILES or memory[1] > memory[0] + GROWTH_KIB:
        raise Failure(f"board {STAYS} has grown: {text}")
    return text


def start(cluster):
    for number in (1, 2, 3):
        board = cluster.board(number)
        board.user = FIRST_USER + number
        board.prefix = ["setpriv", "--reuid", str(board.user), "--regid", str(board.user), "--clear-groups"]
        os.chown(board.dir, board.user, board.user)
    os.chmod(cluster.dir, 0o755)
    cluster.make(3)


def soak(cluster, given):
    luck, quiet = random.Random(given.seed), random.Random(given.seed + 1)
    start(cluster)
    names = [f"site-{number:05d}" for number in range(1, given.sites + 1)]
    import_sites(cluster, names)
    tls = enroll(cluster, names)
    load = Load(cluster.bin, [board.sites_address for board in cluster.boards.values()], given.sites, "site-", tls,
                options=["--in-flight", "64", "--sources", "500", "--seed", str(given.seed)], nicer=5,
                names=names_file(cluster, names))
    load.tell("attach")
    rest(load, "all attach")
    clerk = Clerk(cluster, load, names, os.path.join(cluster.dir, "certificates"), given.seed)
    clerk.start()
    chaos = Chaos(cluster, given.seed)
    over, failed = threading.Event(), []
    mishaps = threading.Thread(target=trouble, args=(chaos, over, quiet, failed), daemon=True)
    mishaps.start()
    began, samples, told = time.monotonic(), [], 0
    while time.monotonic() - began < given.minutes * 60 and not failed and clerk.trouble is None:
        fleet_turn(load, luck, clerk)
        time.sleep(luck.uniform(1, 8))
        at = time.monotonic() - began
        now = sample(cluster.boards[STAYS])
        if now is not None:
            samples.append((at, now))
        if at - told > 60:
            told = at
            say(f"{at / 60:.0f} min: {load.numbers()}; board {STAYS} {now}; {chaos.counts}; sites added "
                f"{clerk.added}, deleted {clerk.deleted}, recertified {clerk.recertified}")
    over.set()
    clerk.over.set()
    while clerk.is_alive():
        fleet_turn(load, luck, clerk)
        clerk.join(0.2)
    mishaps.join()
    if failed or clerk.trouble:
        raise Failure(f"the soak itself failed: {failed or clerk.trouble}")
    rest(load, "at the end")
    numbers = load.numbers()
    if numbers["violations"]:
        raise Failure(f"two sides of a site held the vote {numbers['violations']} times: {load.trouble()}")
    check_writes(cluster, clerk)
    growth = check_growth(samples, given.minutes)
    load.end()
    say(f"no double grant, no lost write of {clerk.added + clerk.deleted}; {clerk.recertified} new certificates; "
        f"{chaos.counts}; connections lost {numbers['connections-lost']}; board {STAYS}: {growth}")


def names_file(cluster, names):
    path = os.path.join(cluster.dir, "names")
    with open(path, "w") as file:
        file.write("\n".join(names) + "\n")
    return path


def trouble(chaos, over, luck, failed):
    try:
        while not over.is_set():
            chaos.once()
            over.wait(luck.uniform(10, 45))
    except Exception as error:
        failed.append(error)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--sites", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    if os.environ.get("SOAK_NET") != "own":
        if os.geteuid() != 0:
            sys.exit("soak.py: only root can make a network name space and cut boards off: run it as root")
        os.execvpe("unshare", ["unshare", "--net", sys.executable, *sys.argv], {**os.environ, "SOAK_NET": "own"})
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    raise_files_limit()
    say(f"seed {given.seed}")
    with Cluster(given.bin) as cluster:
        soak(cluster, given)


if __name__ == "__main__":
    main()
