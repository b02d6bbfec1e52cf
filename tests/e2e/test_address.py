#!/usr/bin/env python3
"""Service addresses that move between three boards in network name spaces (lab.py), with real
corosync 3 and corosync-qdevice as clients. A watcher looks at the interfaces of all boards all the
time: no address is ever at two of them. Times are printed, never judged.
`test_address.py BIN [--long] [NAME...]`; root. About half a minute; the long ones two more."""

import ctypes
import json
import os
import re
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from boards import Failure, main, wait_for
from lab import PEERS, PORT, WITNESS, Lab

LIMIT = 60  # seconds; generous, for a machine with other things to do
POOL = (f"{WITNESS}.100", f"{WITNESS}.101", f"{WITNESS}.102")
POOL6 = ("fd91::1:100",)
MARK = "proto 0x54"  # iproute2's word for witnessd/links.h


class Watcher(threading.Thread):
    """Looks at who has which address, all the time; remembers what must not be."""

    def __init__(self, lab):
        super().__init__(daemon=True)
        self.lab = lab
        self.over = threading.Event()
        self.both = []
        self.looks = 0
        self.start()

    def run(self):
        while not self.over.wait(0.05):
            held = {}
            for number, space in self.lab.boards.items():
                for address in addresses_at(space):
                    held.setdefault(address, []).append(number)
            self.looks += 1
            self.both += [f"{address} at boards {numbers}" for address, numbers in held.items() if len(numbers) > 1]

    def end(self):
        self.over.set()
        self.join(10)
        if self.both:
            raise Failure(f"one address at two boards: {self.both[0]} ({len(self.both)} of {self.looks} looks)")
        if self.looks < 10:
            raise Failure("the watcher saw nothing")


def addresses_at(space):
    """The service addresses at a board's interfaces, as its kernel says."""
    text = space.run("ip", "-o", "addr", "show", "scope", "global")
    return [address for address in re.findall(r"inet6? ([0-9a-f.:]+)/", text)
            if address in POOL + POOL6]


class Service:
    """Three boards that listen everywhere, in name spaces, with a pool."""

    def __init__(self, cluster, nodes=2, options=(), pool=POOL[:1], timeout=5000):
        self.cluster = cluster
        self.lab = Lab(os.path.join(cluster.dir, "lab"), nodes=nodes, timeout=timeout)
        cluster.cleanups.append(self.close)
        for number, node in enumerate(self.lab.nodes, 1):
            node.space.run("ip", "addr", "add", f"fd91::{number}/64", "dev", "qn", "nodad")
        for number, space in self.lab.boards.items():
            board = cluster.board(number, f"{PEERS}.{10 + number}", space.network)
            board.sites_address = f"*:{PORT}"
            board.options = list(options)
        cluster.make(3)
        self.watcher = None
        self.still = None  # a board that stands still
        self.watcher = Watcher(self.lab)
        self.pool = pool
        for address in pool:
            self.add(f"{address}/{64 if ':' in address else 24}")

    def add(self, address):
        self.ask().ctl("address", "add", address, "--interface", "qn")

    def close(self):
        """Whatever has become of the test."""
        if self.watcher is not None:
            self.watcher.over.set()
            self.watcher.join(10)
        self.lab.close()

    def ask(self):
        """A board that knows the cluster: one that has just been started does not yet."""
        return wait_for(LIMIT, "no board answers", lambda: next(
            (board for board in self.cluster.boards.values() if board.running() and board is not self.still
             and (board.status() or {}).get("leaderName")), None))

    def rows(self):
        return {row["address"]: row for row in self.ask().json("address", "list").get("items", [])}

    def holder(self, address=None, seconds=LIMIT):
        """The board whose interface has the address, when the cluster says so as well."""
        address = address or self.pool[0]
        def look():
            status = self.rows().get(address, {}).get("status", {})
            if status.get("state") != "held":
                return None
            board = self.cluster.boards[int(status["board"].removeprefix("board"))]
            return board if address in addresses_at(self.lab.boards[board.number]) else None
        return wait_for(seconds, f"nobody has {address}: {self.rows().get(address)}", look)

    def moved(self, before, address=None):
        def look():
            board = self.holder(address)
            return board if board is not before else None
        return wait_for(LIMIT, f"{address or self.pool[0]} stays at {before.name}", look, every=0.05)

    def gone(self, board, address=POOL[0]):
        wait_for(LIMIT, f"{address} stays at the interface of {board.name}",
                 lambda: address not in addresses_at(self.lab.boards[board.number]), every=0.05)

    def site(self, name="site-1"):
        out = os.path.join(self.lab.dir, name)
        board = self.cluster.any()
        board.ctl("site", "create", name, "--tls", "required")
        board.ctl("site", "enroll", name, "--out", out)
        for node in self.lab.nodes:
            node.import_certificates(f"{out}/qnetd-cacert.crt", f"{out}/qdevice-net-node.p12")
            node.configure(name, "ffsplit")
            node.hosts(self.pool)
            node.start()
        self.attached(name)
        wait_for(LIMIT, f"{name} does not get whole", lambda: all(
            (node.quorum() or {}).get("votes") == len(self.lab.nodes) + 1 for node in self.lab.nodes))

    def attached(self, name, board=None):
        """Waits until every node is attached, to `board` if it is given."""
        def look():
            asked = self.ask().ctl("site", "show", name, "-o", "json", check=False)
            if asked.returncode != 0:
                return False
            here = json.loads(asked.stdout).get("status", {}).get("nodes", [])
            return len(here) == len(self.lab.nodes) and all(
                board is None or node["board"] == str(board.number) for node in here)
        wait_for(LIMIT, f"{name}: not every node is attached", look, every=0.05)

    def pull_the_plug(self, board):
        """Power and wires at once: nothing that it had says a word."""
        for link in ("qn", "pn"):
            self.lab.cut(f"b{board.number}", link)
        board.kill()

    def metric(self, board, name):
        found = re.search(rf"^{name}(?:_total)? (\d+)", board.get("/metrics")[1], re.M)
        return int(found[1]) if found else 0

    def end(self):
        self.watcher.end()
        self.watcher = None


def dead_board(cluster, options=(), leads=True, pool=POOL[:1]):
    """The board with the address dies, the leader or another one: its heir has it, and the clients are
    back, though they had said nothing for up to 16 s. (corosync-qdevice rests for a while before it connects
    anew: that is its own.)"""
    lab = Service(cluster, options=options, pool=pool, timeout=20000)
    lab.site()
    board = lab.holder()
    if (cluster.leader() is board) != leads:
        to = board if leads else next(other for other in cluster.boards.values() if other is not board)
        wait_for(LIMIT, f"{to.name} does not lead", lambda: cluster.leader() is to or
                 to.ctl("cluster", "transfer", to.name, check=False) is None, every=2)
    attached = {node.witness().strip("[]") for node in lab.lab.nodes}
    if attached != {pool[0]}:
        raise Failure(f"the nodes are attached at {attached}")
    lab.pull_the_plug(board)
    began = time.monotonic()
    heir = lab.moved(board)
    at_heir = time.monotonic() - began
    told_nodes = set()

    def all_told():
        told_nodes.update(node.name for node in lab.lab.nodes if node.witness() is None)
        return len(told_nodes) == len(lab.lab.nodes)
    wait_for(LIMIT, "a client does not notice", all_told, every=0.02)
    told = time.monotonic() - began
    lab.attached("site-1", heir)
    print(f"    {board.name} ({'the leader' if leads else 'not the leader'}) died: {pool[0]} at {heir.name} after {at_heir:.1f} s, its clients know "
          f"after {told:.1f} s and are attached there after {time.monotonic() - began:.1f} s{' (tickle off)' if options else ''}", flush=True)
    tickled = lab.metric(heir, "tiebreak_clients_tickled")
    if (tickled >= 2) == bool(options):
        raise Failure(f"{tickled} packets were sent to the dead board's clients")
    events = [event["type"] for event in heir.json("event", "list")["items"]]
    if "address.moved" not in events:
        raise Failure(f"no event tells of the move: {events[:10]}")
    lab.end()


def dead_follower(cluster):
    dead_board(cluster, leads=False)


def dead_board_with_ipv6(cluster):
    dead_board(cluster, leads=False, pool=POOL6)


def without_tickle(cluster):
    """The same where the heir may not tell the clients: they notice with their next heartbeat."""
    dead_board(cluster, ("--set", "addresses.tickle=off"))


def a_site_that_needs_it(cluster):
    """The board is drained while a site goes on with the witness's vote alone: the address stays until the
    site can do without, or nobody cares (--now)."""
    lab = Service(cluster)
    lab.site()
    board = lab.holder()
    first, second = lab.lab.nodes
    second.kill()
    wait_for(LIMIT, "the survivor does not go on with the witness's vote",
             lambda: (first.quorum() or {}).get("nodes") == 1 and first.quorum()["votes"] == 2)
    board.ctl("node", "drain", board.name, "--no-wait")
    time.sleep(8)
    if lab.holder() is not board or not first.settled(True):
        raise Failure("the address was taken from a site that needs it")
    second.start()
    lab.attached("site-1")
    heir = lab.moved(board)
    lab.attached("site-1", heir)
    lab.end()


READ = {"x86_64": "0", "aarch64": "63"}[os.uname().machine]  # the number of that system call


class Detained:
    """The thread of a board that was the number-th to begin, main being 0: the kernel keeps it waiting in the system
    call by which it hears of a letter. As a debugger does it."""

    ATTACH, DETACH, SYSCALL, ANY_THREAD = 16, 17, 24, 0x40000000

    def __init__(self, board, number):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.task = f"/proc/{board.pid()}/task"
        self.thread = sorted(map(int, os.listdir(self.task)))[number]
        self.ptrace(self.ATTACH)

    def ptrace(self, what):
        if self.libc.ptrace(what, self.thread, None, None) != 0:
            raise Failure(f"ptrace {what}: {os.strerror(ctypes.get_errno())}")
        if what != self.DETACH:
            os.waitpid(self.thread, self.ANY_THREAD)

    def until_letter(self):
        while open(f"{self.task}/{self.thread}/syscall").read().split()[0] != READ:
            self.ptrace(self.SYSCALL)


def every_way_of_losing_it(cluster):
    """A board that stands still, one that is killed and started again at once, a drained one, one
    that is stopped, and the balance of several addresses."""
    lab = Service(cluster, nodes=0, pool=POOL)
    lab.add(f"{POOL6[0]}/64")
    holders = [lab.holder(address) for address in POOL + POOL6]
    counts = sorted(holders.count(board) for board in cluster.boards.values())
    if counts != [1, 1, 2]:
        raise Failure(f"four addresses at three boards are spread {counts}")
    # It stands still: no address outlives its lease, whatever it does then.
    board = lab.holder()
    lab.still = board
    board.signal(signal.SIGSTOP)
    began = time.monotonic()
    lab.gone(board)
    print(f"    {board.name} stands still: {POOL[0]} gone from it after {time.monotonic() - began:.1f} s", flush=True)
    heir = lab.moved(board)
    print(f"    and at {heir.name} after {time.monotonic() - began:.1f} s", flush=True)
    board.signal(signal.SIGCONT)
    lab.still = None
    wait_for(LIMIT, f"{board.name} does not find the cluster again", lambda: (board.status() or {}).get("leaderName"))
    time.sleep(1)
    if addresses_at(lab.lab.boards[board.number]):
        raise Failure(f"{board.name} took addresses back after it stood still")
    # Cut off from its peers, though not from the sites: gone from it before another has it.
    board = lab.holder()
    lab.lab.cut(f"b{board.number}", "pn")
    lab.still = board
    began = time.monotonic()
    lab.gone(board)
    print(f"    {board.name} is cut off from its peers: {POOL[0]} gone from it after {time.monotonic() - began:.1f} s", flush=True)
    heir = lab.moved(board)
    print(f"    and at {heir.name} after {time.monotonic() - began:.1f} s", flush=True)
    lab.lab.join(f"b{board.number}", "pn")
    lab.still = None
    wait_for(LIMIT, f"{board.name} does not find the cluster again", lambda: (board.status() or {}).get("leaderName"))
    # Killed and started again at once: what it left is gone before it serves.
    board = lab.holder()
    board.kill()
    board.start()
    with open(board.log, errors="replace") as log:
        if "address-leftover" not in log.read():
            raise Failure(f"{board.name} has not removed what the killed witnessd left: {board.last_log()}")
    lab.holder()
    # Drained, then undrained.
    board = lab.holder()
    board.ctl("node", "drain", board.name, timeout=LIMIT)
    lab.moved(board)
    lab.gone(board)
    board.ctl("node", "undrain", board.name)
    # Stopped in order: it does not wait for a lease to end.
    board = lab.holder()
    began = time.monotonic()
    if board.stop() != 0:
        raise Failure(f"{board.name} ended with {board.process.returncode}: {board.last_log()}")
    heir = lab.moved(board)
    print(f"    {board.name} was stopped: {POOL[0]} at {heir.name} after {time.monotonic() - began:.1f} s", flush=True)
    board.start()
    wait_for(LIMIT, f"{board.name} does not come back", lambda: (board.status() or {}).get("nodesReachable") == 3)
    # Stopped while its kernel keeps the thread that has the addresses waiting.
    board = lab.holder()
    lab.still = board
    thread = Detained(board, 1)
    board.process.terminate()
    time.sleep(0.05)
    thread.until_letter()
    time.sleep(3)
    thread.ptrace(thread.DETACH)
    if board.process.wait(30) != 0:
        raise Failure(f"{board.name} ended with {board.process.returncode}: {board.last_log()}")
    lab.moved(board)
    lab.still = None
    # Removed from the cluster: it is no member any more, but may have it until its lease is over.
    stopped, board = board, lab.holder()
    stopped.start()
    wait_for(LIMIT, f"{stopped.name} does not come back", lambda: (stopped.status() or {}).get("nodesReachable") == 3)
    if cluster.leader() is board:
        stopped.ctl("cluster", "transfer", stopped.name)
        wait_for(LIMIT, f"{stopped.name} does not lead", lambda: cluster.leader(stopped) is stopped)
    lab.still = board  # not to be asked any more
    lab.ask().ctl("cluster", "remove", board.name, "--yes")
    heir = lab.moved(board)
    lab.gone(board)
    # Out of the pool: gone.
    heir.ctl("address", "remove", f"{POOL[0]}/24")
    lab.gone(heir)
    lab.end()


def what_cannot_be(cluster):
    """Refused with one sentence, or an alarm: an address of another machine, of a board, at an interface
    that nobody has."""
    lab = Service(cluster, nodes=1, pool=())
    first = cluster.board(1)
    for arguments, words in (
            (("10.91.2.100", "--interface", "qn"), "prefix length"),
            (("10.91.2.300/24", "--interface", "qn"), "no address"),
            (("10.91.2.100/33", "--interface", "qn"), "no address"),
            (("10.91.2.255/24", "--interface", "qn"), "broadcast"),
            (("127.0.0.9/8", "--interface", "qn"), "loopback"),
            (("224.0.0.5/24", "--interface", "qn"), "multicast"),
            (("fe80::5/64", "--interface", "qn"), "link-local"),
            (("10.91.2.100/24",), "interface"),
            (("10.91.2.100/24", "--interface", "a-name-that-is-too-long"), "longer than 15"),
            (("10.91.2.100/24", "--interface", "eth9"), "no board has an interface eth9"),
            (("10.91.3.11/24", "--interface", "pn"), "own address of board board1"),
            (("10.91.2.100/24", "--interface", "qn", "--board", "nobody"), "not all of them are boards")):
        done = first.ctl("address", "add", *arguments, check=False)
        if done.returncode == 0 or words not in done.stderr:
            raise Failure(f"address add {' '.join(arguments)}: {done.returncode}, {done.stderr.strip()}")
    # Another machine has it: found before it is taken.
    lab.add(f"{WITNESS}.1/24")
    taken = wait_for(LIMIT, "a foreign address is not noticed",
                     lambda: next((row for row in lab.rows().values()
                                   if row.get("status", {}).get("state") == "taken"), None))
    if "another machine has it" not in taken["status"]["reason"]:
        raise Failure(f"the reason is {taken['status']}")
    wait_for(LIMIT, "no event tells of the conflict", lambda: any(
        event["type"] == "address.conflict" for event in first.json("event", "list")["items"]))
    if any(f"{WITNESS}.1/" in space.run("ip", "-o", "addr") for space in lab.lab.boards.values()):
        raise Failure("a board has taken another machine's address")
    wait_for(LIMIT, "no alarm tells of it", lambda: any(
        alarm["kind"] == "address" for alarm in first.json("cluster", "status").get("alarms", [])))
    lab.end()


if __name__ == "__main__":
    os.environ["MALLOC_PERTURB_"] = "90"  # a board that uses what it has freed is not lucky
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    main([dead_board, dead_follower, dead_board_with_ipv6, a_site_that_needs_it, every_way_of_losing_it, what_cannot_be, without_tickle],
         long=[dead_follower, dead_board_with_ipv6, a_site_that_needs_it, without_tickle, every_way_of_losing_it, what_cannot_be])
