#!/usr/bin/env python3
"""Virtual machines on three boards of this machine: started, moved, drained, and made good when a board
is lost; never two processes of one VM, and none that outlives its board's lease. witness-vm is played by
the program of tests/unit/test_host.c, so that this runs where there is no KVM for arm64; the deadline and
the process's end with its daemon are the real ones (hv/lease.h, VmStart.with_parent).

A watcher looks at the processes of all boards every few milliseconds, whatever the boards believe."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from boards import Failure, main, wait_for

VMS = ("web", "db")


def processes():
    """(pid, parent, VM) of each that plays a VM and is not a zombie."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                words = file.read().split("\0")
            if len(words) < 2 or words[1] != "supervised":
                continue
            with open(f"/proc/{pid}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
            with open(f"/proc/{pid}/comm") as file:
                name = file.read().strip()
        except OSError:
            continue
        if state not in "ZX":
            found.append((int(pid), int(parent), name))
    return found


class Watcher(threading.Thread):
    """Counts the VMs' processes of these boards, and notes when there were too many of them."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.limit = 0
        self.problem = None
        self.ended = False

    def own(self):
        parents = {board.process.pid for board in self.cluster.boards.values() if board.process}
        return [pid for pid, parent, _ in processes() if parent in parents]

    def run(self):
        while not self.ended:
            own = self.own()
            # Two looks: between the first and the last process that is read another may have ended.
            if len(own) > self.limit and len(self.own()) > self.limit and not self.problem:
                self.problem = f"{len(own)} processes for {self.limit} virtual machines: {own}"
            time.sleep(0.01)

    def check(self):
        if self.problem:
            raise Failure(self.problem)


def begin(cluster):
    program = os.path.join(cluster.bin, "..", "tests", "unit", "test_host")
    for number in (1, 2, 3):
        cluster.board(number).options = ["--set", f"vms.program={os.path.realpath(program)}"]
    cluster.make(3)
    board = cluster.board(1)
    wait_for(30, "the boards do not say what they can give to VMs",
             lambda: all(node.get("host", {}).get("hosts") for node in board.json("node", "list")["items"]))
    kernel = os.path.join(cluster.dir, "kernel")
    with open(kernel, "wb") as file:
        file.write(os.urandom(100000))
    board.ctl("image", "push", kernel, "--name", "linux", "--kind", "kernel", "--wait")
    return board


def view(board, vm):
    done = board.ctl("vm", "show", vm, "-o", "json", check=False)
    if done.returncode != 0:
        return {}
    return json.loads(done.stdout)


def runs_on(board, vm):
    status = view(board, vm).get("status", {})
    return status.get("board") if status.get("condition") == "running" else None


def by_name(cluster, name):
    return cluster.boards[int(name.removeprefix("board"))]


def events(board):
    return [(event["type"], event.get("message", "")) for event in board.json("event", "list")["items"]]


def other(cluster, *boards):
    return next(board for board in cluster.boards.values() if board not in boards and board.running())


def lost(cluster, watcher, vm, how):
    """Its board goes: the VM runs on another one, once; the board comes back and changes nothing."""
    here = by_name(cluster, runs_on(cluster.any(), vm))
    asked = other(cluster, here)
    began = time.monotonic()
    how(here)
    there = wait_for(40, f"{vm} does not run elsewhere after its board was lost",
                     lambda: runs_on(asked, vm) not in (None, here.name) and runs_on(asked, vm))
    print(f"  {vm} is on {there} {time.monotonic() - began:.1f} s after {here.name} was lost")
    if here.running():
        here.signal(signal.SIGCONT)
    else:
        here.start()
    wait_for(20, f"{here.name} does not come back", here.status)
    time.sleep(4)  # longer than a lease: what was to happen has
    if runs_on(asked, vm) != there or view(asked, vm)["placement"]["node"] == str(here.number):
        raise Failure(f"{vm} has moved when {here.name} came back")
    watcher.check()


def start(cluster):
    """One VM that runs, and its watcher."""
    board = begin(cluster)
    watcher = Watcher(cluster)
    watcher.limit = 1
    watcher.start()
    board.ctl("vm", "create", "web", "--kernel", "linux", "--memory", "16M", "--start", "--wait")
    if len(watcher.own()) != 1:
        raise Failure(f"web is said to run: {watcher.own()}")
    return watcher


def consoles(cluster, vm):
    """Both ways, through every board, whichever the VM runs on; what each was told is seen by all."""
    typed = ""
    for board in cluster.boards.values():
        key = str(board.number)
        typed += f"[{key}]"
        with subprocess.Popen([os.path.join(cluster.bin, "witnessctl"), "--socket", board.socket, "vm", "console", vm],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as console:
            os.set_blocking(console.stdout.fileno(), False)
            console.stdin.write(key.encode())
            console.stdin.flush()
            said = []
            try:
                wait_for(20, f"{board.name} does not show {typed}",
                         lambda: said.append((console.stdout.read() or b"").decode()) or typed in "".join(said))
            finally:
                console.kill()


def plug(cluster):
    watcher = start(cluster)
    consoles(cluster, "web")
    lost(cluster, watcher, "web", lambda here: here.kill())


def frozen(cluster):
    """The daemon is: its VM ends all the same, and does not go on when the daemon does."""
    lost(cluster, start(cluster), "web", lambda here: here.signal(signal.SIGSTOP))


class Hold:
    """Stops one thread of a daemon in its loop, and not in the midst of something: the rest goes on."""

    EPOLL = {"22", "232", "281"}  # numbers of epoll_wait and epoll_pwait on arm64 and x86-64
    SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000

    def __init__(self, pid, name):
        tasks = f"/proc/{pid}/task"
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.tid = next(int(tid) for tid in os.listdir(tasks)
                        if open(f"{tasks}/{tid}/comm").read().strip() == name)
        wait_for(10, f"thread {name} does not wait in its loop", self.caught)

    def trace(self, request):
        nothing = ctypes.c_void_p(0)
        if self.libc.ptrace(request, ctypes.c_long(self.tid), nothing, nothing) != 0:
            raise Failure(f"ptrace {request:#x}: {os.strerror(ctypes.get_errno())}")

    def caught(self):
        self.trace(self.SEIZE)
        self.trace(self.INTERRUPT)
        os.waitpid(self.tid, self.WALL)
        with open(f"/proc/{self.tid}/syscall") as file:
            if file.read().split()[0] in self.EPOLL:
                return True
        self.let_go()
        return False

    def let_go(self):
        self.trace(self.DETACH)


def hung(cluster):
    """Only the thread that renews the VMs hangs, on the leader and on another board: they are made good elsewhere,
    and the board serves its sites all the while."""
    watcher = start(cluster)
    leader = cluster.leader(cluster.any())
    for here in (leader, other(cluster, leader)):
        asked = other(cluster, here)
        if runs_on(asked, "web") != here.name:  # the second time: it may have VMs again
            asked.ctl("vm", "move", "web", here.name, "--yes", "--wait")
        hold = Hold(here.process.pid, "vm-host")
        there = wait_for(40, f"web does not run elsewhere while the host of {here.name} hangs",
                         lambda: runs_on(asked, "web") not in (None, here.name) and runs_on(asked, "web"))
        if asked.status()["nodesReachable"] != 3 or cluster.leader(asked) is not leader:
            raise Failure(f"{here.name} is lost as a whole: {asked.status()}")
        if here is leader:
            wait_for(40, "no alarm tells of the host that hangs",
                     lambda: any(kind == "alarm.raised" and here.name in text for kind, text in events(asked)))
        hold.let_go()
        time.sleep(4)
        if runs_on(asked, "web") != there or len(watcher.own()) != 1:
            raise Failure(f"web has moved when the host of {here.name} went on")
    wait_for(40, "the alarm does not end", lambda: "alarm.cleared" in dict(events(asked)))
    watcher.check()


def card(cluster):
    """The card of a board hangs: what is written to the log does not end, and gives no error. Its daemon ends, and a
    VM that was to begin there begins elsewhere."""
    hangs = os.path.join(cluster.dir, "hangs")
    shim = os.path.realpath(os.path.join(cluster.bin, "slow_card.so"))
    cluster.board(2, prefix=["env", f"LD_PRELOAD={shim}", f"TIEBREAK_CARD_HANGS={hangs}"])
    watcher = start(cluster)
    watcher.limit = 2
    leader, here = cluster.board(1), cluster.board(2)
    with open(hangs, "w"):
        leader.ctl("vm", "create", "db", "--kernel", "linux", "--memory", "16M", "--prefer", here.name, "--start")
    wait_for(10, f"db is not placed on {here.name}",
             lambda: view(leader, "db").get("placement", {}).get("node") == str(here.number))
    wait_for(60, "db does not run elsewhere", lambda: runs_on(leader, "db") not in (None, here.name))
    watcher.check()


def removed(cluster):
    """Its board dies and is taken out of the cluster at once: the VM still waits for that board's lease."""
    watcher = start(cluster)
    here = by_name(cluster, runs_on(cluster.any(), "web"))
    asked = other(cluster, here)
    here.signal(signal.SIGSTOP)
    wait_for(20, "nobody else leads", lambda: cluster.leader(asked) is not here)
    asked.ctl("cluster", "remove", here.name, "--yes")
    wait_for(30, "web does not run elsewhere", lambda: runs_on(asked, "web") not in (None, here.name))
    here.signal(signal.SIGCONT)
    time.sleep(4)
    if len(watcher.own()) != 1:
        raise Failure(f"web should run once: {watcher.own()}")
    watcher.check()


def persons(cluster):
    watcher = start(cluster)
    board = cluster.any()
    here = runs_on(board, "web")
    there = other(cluster, by_name(cluster, here)).name
    board.ctl("vm", "move", "web", there, "--yes", "--wait")
    if runs_on(board, "web") != there:
        raise Failure(f"web is not on {there}: {view(board, 'web')}")
    board.ctl("vm", "restart", "web", "--wait")
    if runs_on(board, "web") != there:
        raise Failure(f"web was restarted elsewhere: {view(board, 'web')}")
    watcher.check()
    # A guest that crashes comes back on its board.
    os.kill(watcher.own()[0], signal.SIGKILL)
    wait_for(20, "web does not come back after its guest's end",
             lambda: view(board, "web").get("status", {}).get("restarts") == 1 and runs_on(board, "web") == there)
    # Drained: it leaves.
    board.ctl("node", "drain", there)
    elsewhere = wait_for(40, f"web does not leave {there}",
                         lambda: runs_on(board, "web") not in (None, there) and runs_on(board, "web"))
    board.ctl("node", "undrain", there)
    if not any(kind == "vm.moved" and f"from {there} to {elsewhere}" in text and f"{there} is drained" in text
               for kind, text in events(board)):
        raise Failure(f"the events do not say why it moved: {events(board)[-8:]}")
    # Stopped: nothing is left.
    board.ctl("vm", "stop", "web", "--wait")
    wait_for(10, "a process is left of a VM that was stopped", lambda: not watcher.own())
    board.ctl("vm", "delete", "web", "--yes")
    watcher.check()


def majority(cluster):
    """Two of three boards die: the third ends its VMs when its lease is over, and starts none; with the
    others it goes on."""
    board = begin(cluster)
    watcher = Watcher(cluster)
    watcher.limit = 2
    watcher.start()
    for vm in VMS:
        board.ctl("vm", "create", vm, "--kernel", "linux", "--memory", "16M", "--start", "--wait")
    here = by_name(cluster, runs_on(board, "web"))
    gone = [each for each in cluster.boards.values() if each is not here]
    for each in gone:
        each.kill()
    wait_for(10, "a process outlives its board's lease", lambda: not watcher.own())
    time.sleep(5)
    if watcher.own():
        raise Failure("a VM runs without a majority")
    for each in gone:
        each.start()
    for vm in VMS:
        wait_for(40, f"{vm} does not run again", lambda: runs_on(here, vm))
    if len(watcher.own()) != 2:
        raise Failure(f"two VMs are said to run: {watcher.own()}")
    watcher.check()


main([plug, frozen, hung, card, removed, persons, majority], long=[frozen, hung, card, removed, persons, majority])
