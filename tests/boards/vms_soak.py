#!/usr/bin/env python3
"""vms_soak.py: 24 virtual machines on three emulated boards, and all that can be done to them, at random.

    vms_soak.py [--packages DIR] [--minutes N] [--seed S] [--record FILE]

Half of the VMs run Linux (the small kernel: make small-kernel), half the guest that says what time it is; 64 MiB each.
They are started, stopped, moved, restarted, deleted and made again, their processes killed, and boards unplugged, for
ten minutes. All the time: never two processes of one VM, nor lines of two (recorder.py, instances.py). In the end the
VMs that are to run do, once each; then all are stopped and deleted, and each board must be as it was before: no process
of a VM, no tap, no cgroup, no files, and witnessd, which has not ended once, with no more descriptors or memory than after all
of the VMs had run and been stopped for the first time. The seed is printed; the boards' timing is their own."""

import argparse
import pathlib
import random
import re
import sys
import tempfile
import textwrap
import time

import cluster
import debian
import guests
import instances
import machine
import recorder
import smallkernel
from lab import ROOT, command_line
from watched import WAIT_S, Lab, tell

COUNT = 24
NAMES = [f"vm-{number:02}" for number in range(1, COUNT + 1)]
LINUX = NAMES[:COUNT // 2]
PRINTING = NAMES[COUNT // 2:COUNT // 2 + 4]  # whose consoles are followed: each costs a board a process or three
BOARD_MIB, BOARD_CORES = 2048, 3  # two boards have room for all: four VMs may share a core
GROWTH_KIB = 4096  # the log is kept in memory, 2,048 to 6,144 entries of half a KiB (cluster/engine.c)
GROWTH_FILES = 4
PAUSE_S = (0.2, 2.0)


class Soak:
    def __init__(self, lab, luck):
        self.lab, self.luck = lab, luck
        self.wanted = {}  # VM: is it to run; not there: deleted
        self.done, self.refused = {}, {}
        self.cut, self.until = None, 0

    def board(self):
        return self.luck.choice([board for board in self.lab.boards.boards if board is not self.cut])

    def say(self, command, what):
        """True when the board took it."""
        status, said = self.board().run(command, 300)
        # What had no answer in time and was asked again.
        if status != 0 and what == "create" and "exists; change it" in said:
            status = 0
        book = self.done if status == 0 else self.refused
        book[what] = book.get(what, 0) + 1
        if status != 0:
            tell(f"    {command.split(' --kernel')[0]}: {said.strip().splitlines()[0] if said.strip() else status}")
        return status == 0

    # --- what is done ---

    def create(self, name):
        kind = (f"--kernel small --initrd init --nic br0 --command-line '{command_line('&tick=0,20000')}'" if name in LINUX
                else "--kernel bare --nic br0 --command-line tock")
        if self.say(f"witnessctl vm create {name} {kind} --memory 64M --restart always --restart-attempts 20 --start", "create"):
            self.wanted[name] = True

    def stop(self, name):
        if self.say(f"witnessctl vm stop {self.luck.choice(['--now', ''])} {name}", "stop"):
            self.wanted[name] = False

    def start(self, name):
        if self.say(f"witnessctl vm start {name}", "start"):
            self.wanted[name] = True

    def move(self, name):
        self.say(f"witnessctl vm move {name} {self.luck.choice(['', *[board.name for board in self.lab.boards.boards]])} --yes",
                 "move")

    def restart(self, name):
        self.say(f"witnessctl vm restart {name}", "restart")

    def delete(self, name):
        if self.say(f"witnessctl vm delete --yes {name}", "delete"):
            del self.wanted[name]

    def kill(self, name):
        for board in self.lab.boards.boards:
            for pid in (self.lab.record.census(board) or {}).get(name, ()):
                board.run(f"kill -9 {pid}")
                self.done["kill"] = self.done.get("kill", 0) + 1

    def unplug(self, _name=None):
        if self.cut is None:
            self.cut = self.luck.choice(self.lab.boards.boards)
            self.cut.cable(False)
            self.until = self.lab.record.now() + self.luck.uniform(1, 25)
            self.done["unplug"] = self.done.get("unplug", 0) + 1
            tell(f"    {self.cut.name} is unplugged")

    def plug(self):
        if self.cut is not None:
            self.cut.cable(True)
            tell(f"    {self.cut.name} is plugged in")
            self.cut = None

    def once(self):
        if self.cut is not None and self.lab.record.now() > self.until:
            self.plug()
        name = self.luck.choice(NAMES)
        if name not in self.wanted:
            self.create(name)
        elif not self.wanted[name]:
            self.luck.choice([self.start, self.start, self.start, self.delete])(name)
        else:
            self.luck.choice([self.stop, self.move, self.move, self.restart, self.kill, self.kill, self.unplug])(name)

    # --- what must be so ---

    def running(self):
        """{VM: [board of a process]}; None: a board does not say."""
        found = {}
        for board in self.lab.boards.boards:
            vms = self.lab.record.census(board)
            if vms is None:
                return None
            for vm, pids in vms.items():
                found.setdefault(vm, []).extend([board.name] * len(pids))
        return found

    def at_rest(self, wanted, what):
        """Until exactly the VMs that are wanted have a process, one each."""
        self.lab.boards.whole(WAIT_S)
        names = sorted(name for name, runs in wanted.items() if runs)

        def rest():
            found = self.running()
            return found is not None and sorted(found) == names and all(len(there) == 1 for there in found.values())
        try:
            self.lab.until(what, rest)
        except cluster.Failure:
            raise cluster.Failure(f"{what}: wanted {names}, there are {self.running()}\n"
                                  + self.lab.boards.boards[0].run("witnessctl vm list")[1]) from None

    def stop_all(self):
        for name in sorted(self.wanted):
            if self.wanted[name]:
                self.insist(lambda name=name: self.stop(name) or not self.wanted[name], f"{name} cannot be stopped")
        self.at_rest(self.wanted, "all VMs are stopped, but not all are gone")

    def leads(self, board):
        if self.lab.boards.leader()[0] is board:
            return True
        board.run(f"witnessctl cluster transfer {board.name}")
        return False

    def insist(self, action, what):
        end = time.monotonic() + WAIT_S
        while not action():
            if time.monotonic() > end:
                raise cluster.Failure(what)
            time.sleep(1)


FACTS = """
pid=$(systemctl show -P MainPID witnessd)
echo PID $pid
echo KIB $(sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$pid/status)
echo FILES $(ls /proc/$pid/fd | wc -l)
echo OPEN $(ls -l /proc/$pid/fd | sed -n 's/.* -> //p' | sed 's/:\\[.*//; s/ (deleted)//' | sort | uniq -c | sed 's/^ *//; s/ /x/; s/$/,/')
echo LINKS $(ss -Htunp state connected | grep "pid=$pid," | awk '{print $1, $2, $5, $6}' | sed 's/$/,/')
echo TAPS $(ls /sys/class/net/br0/brif | grep -v lan0)
echo INTERFACES $(ls /sys/class/net | grep -vE '^(lo|br0|lan0)$')
echo GROUPS $(find /sys/fs/cgroup/system.slice/witnessd.service/vms -mindepth 1 -type d 2>/dev/null)
echo PROCESSES $(for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = witness-vm ] && echo ${p#/proc/}; done)
echo CHILDREN $(cat /proc/$pid/task/*/children)
echo FOLDERS $(ls /var/lib/tiebreak/vms)
"""
EMPTY = ("TAPS", "INTERFACES", "GROUPS", "PROCESSES", "CHILDREN")


def facts(lab):
    """{board: {word: text}}."""
    found = {}
    for board in lab.boards.boards:
        said = lab.boards.shell(board, FACTS)
        found[board.name] = {match.group(1): match.group(2) for match in re.finditer(r"^([A-Z]+) ?(.*)$", said, re.M)}
    return found


def looked_at(lab):
    """`facts`, as soon as what goes a moment later has gone, on all boards."""
    end = time.monotonic() + 60
    while True:
        found = facts(lab)
        if time.monotonic() > end or not any(board[word] for board in found.values() for word in EMPTY):
            return found
        time.sleep(2)


def differences(before, after):
    problems = []
    for name, now in after.items():
        then = before[name]
        problems += [f"{name}: {word.lower()} left: {now[word]}" for word in EMPTY if now[word]]
        if now["PID"] != then["PID"]:
            problems.append(f"{name}: witnessd has ended: it was {then['PID']} and is {now['PID']}")
        for word, allowed in (("KIB", GROWTH_KIB), ("FILES", GROWTH_FILES)):
            if int(now[word]) > int(then[word]) + allowed:
                problems.append(f"{name}: witnessd has grown: {word} {then[word]} before, {now[word]} after; open and linked "
                                f"before: {then['OPEN']} {then['LINKS']}, after: {now['OPEN']} {now['LINKS']}")
    return problems


def soak(lab, luck, minutes):
    soaked = Soak(lab, luck)
    for name in NAMES:
        soaked.insist(lambda name=name: soaked.create(name) or name in soaked.wanted, f"{name} cannot be made")
    soaked.at_rest(soaked.wanted, "not all VMs run")
    tell(f"{COUNT} VMs run: {({name: there[0] for name, there in sorted(soaked.running().items())})}")
    # The first who leads needs memory for it, and the first election links between those who do not.
    for board in lab.boards.boards:
        soaked.insist(lambda board=board: soaked.leads(board), f"{board.name} does not become the leader")
    soaked.stop_all()
    before = looked_at(lab)
    tell("all were stopped")
    began = told = time.monotonic()
    while time.monotonic() < began + minutes * 60:
        soaked.once()
        lab.sleep(luck.uniform(*PAUSE_S))
        if time.monotonic() > told + 60:
            told = time.monotonic()
            tell(f"{(told - began) / 60:.0f} min: done {soaked.done}, refused {soaked.refused}")
    soaked.plug()
    soaked.at_rest(soaked.wanted, "at the end not just what is to run does")
    tell(f"at rest: {sum(soaked.wanted.values())} run, {COUNT - len(soaked.wanted)} are deleted; done {soaked.done}, refused "
         f"{soaked.refused}")
    soaked.stop_all()
    after = looked_at(lab)
    problems = differences(before, after)
    for name in sorted(soaked.wanted):
        soaked.insist(lambda name=name: soaked.say(f"witnessctl vm delete --yes {name}", "delete"), f"{name} stays")
    try:
        lab.until("files of deleted VMs are left", lambda: not any(board["FOLDERS"] for board in facts(lab).values()), 120)
    except cluster.Failure as failure:
        problems.append(f"{failure}: {facts(lab)}")
    for name, now in after.items():
        tell(f"{name}: witnessd KiB {before[name]['KIB']} -> {now['KIB']}, descriptors {before[name]['FILES']} -> {now['FILES']}")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--packages", default=str(ROOT / "build/packages"), help="the folder with our .debs")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--record", default=str(ROOT / "build/vms-soak.json"), help="where the record is kept")
    parser.add_argument("--slow", type=int, default=1, metavar="N",
                        help="for a busy machine: the boards' clocks go so many times slower than this one's")
    options = parser.parse_args()
    tell(f"seed {options.seed}")
    problems = []
    with tempfile.TemporaryDirectory(prefix="vms-soak-") as folder:
        lab = Lab(folder, options.packages, options.record, options.slow)
        lab.fresh_s, lab.cores = 20, BOARD_CORES
        for board in lab.boards.boards:
            board.memory_mib = BOARD_MIB
        try:
            with lab.record:
                lab.create({"small": smallkernel.image(), "init": guests.init()})
                lab.form(PRINTING)
                first = lab.boards.boards[0]
                for name, kind in (("bare", "kernel"), ("small", "kernel"), ("init", "initrd")):
                    lab.boards.shell(first, f"witnessctl image push {recorder.FOLDER}/{name} --name {name} --kind {kind} "
                                            "--wait", WAIT_S)
                problems += soak(lab, random.Random(options.seed), options.minutes)
            report = instances.Report(instances.read(options.record), PRINTING)
            problems += report.problems
            tell(f"{sum(map(len, report.processes.values()))} processes of {len(report.processes)} VMs were seen, "
                 f"{sum(map(len, report.lines.values()))} lives of {len(report.lines)} by their lines")
        except (cluster.Failure, machine.Down, debian.Missing) as failure:
            problems.append(str(failure))
        finally:
            lab.boards.down()
    tell(textwrap.indent("\n".join(problems), "        ") or "no leak, nothing left, never two of one")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
