#!/usr/bin/env python3
"""instances.py: were two instances of one VM alive at once? Reads what recorder.py has recorded, and believes nobody.

    instances.py RECORD        # tells all lives of all VMs, and ends with 1 if any two were not apart

One clock. Every line that a guest prints has the counter of its board at that moment in it (tests/boards/guest/bare,
`tick`), so it does not matter how long a line was on its way: one that a frozen VM, daemon or board lets out late has
the time at which it was printed, and one that is printed after the freeze has that. The counter of an emulated board
is this machine's CLOCK_MONOTONIC less a constant, for it is driven by it (no instruction clock here), but that is not
taken for granted: five times a second each board says what its counter is, with the time that it was last told by this
machine. Both ends bound it: the counter showed this after that time was sent, and before the answer was here. All that
is assumed is that a counter does not run faster than this machine's clock; it may stand still (a paused emulator).
So each event has an earliest and a latest time, and every claim here is made by those:

- two instances OVERLAP if neither can have ended before the other began, wherever in their bounds the events were;
- they are APART if the latest end of one is before the earliest beginning of the other;
- anything else is UNCLEAR, and no better than an overlap.

An instance is seen twice: by its lines, from the guest's first instruction to the last line, and by its process in the
list of its board, for as long as a thread of it may run something (recorder.py keeps apart what the kernel still takes
down, which for many at once may last a second). A process of a board that stands still does not run and cannot end: its
latest end is after the freeze, and so only an overlap that is certain counts for processes, and the last look at one
does not count: its threads may not have got to their end yet. Lines must be apart. A process that is there for seconds
without a line, or a line without a process, means that something was not seen, and is a failure too."""

import bisect
import collections
import json
import math
import sys

OVERLAP, APART, UNCLEAR = "overlap", "apart", "unclear"
BLIND_S = 10  # a process that is there for so long must have printed


class Clock:
    """What the counter of a board was when, from its being switched on to its end. Seconds of this machine's clock."""

    def __init__(self, on, hz, off=math.inf):
        self.hz, self.off = hz, off
        self.sent, self.got = [(0, on)], []  # (counter, what the clock was at least; at most)

    def add(self, sent, before, after, got):
        """`sent` 0: the board was told no time yet."""
        if sent:
            self.sent.append((before, sent))
        self.got.append((after, got))

    def close(self):
        """The best bound of all samples before a counter, of all after it."""
        def bounds(samples, best):
            found, value = [], None
            for counter, time in samples:
                offset = time - counter / self.hz
                value = offset if value is None else best(value, offset)
                found.append((counter, value))
            return found
        self.low = bounds(sorted(self.sent), max)
        self.high = bounds(sorted(self.got, reverse=True), min)[::-1]

    def earliest(self, counter):
        return self.low[bisect.bisect_right(self.low, (counter, math.inf)) - 1][1] + counter / self.hz

    def latest(self, counter):
        at = bisect.bisect_left(self.high, (counter, -math.inf))
        return min(self.off, self.high[at][1] + counter / self.hz if at < len(self.high) else math.inf)

    def bounds(self, counter):
        return self.earliest(counter), self.latest(counter)


class Life:
    """One instance of a VM: `begin` and `end` are (earliest, latest) each."""

    def __init__(self, vm, board, what, begin, end, counters):
        self.vm, self.board, self.what, self.begin, self.end, self.counters = vm, board, what, begin, end, counters

    def __str__(self):
        return f"{self.vm} on board {self.board} ({self.what})"


def judge(a, b):
    """(verdict, seconds between them) of two lives of one VM."""
    if a.counters and b.counters and a.board == b.board:  # one counter: exact
        first, second = sorted((a, b), key=lambda life: life.counters[0])
        if second.counters[0] <= first.counters[1]:
            return OVERLAP, 0
        return APART, max(0, second.begin[0] - first.end[1])
    for first, second in ((a, b), (b, a)):
        if first.end[1] <= second.begin[0]:
            return APART, second.begin[0] - first.end[1]
    if all(first.end[0] >= second.begin[1] for first, second in ((a, b), (b, a))):
        return OVERLAP, 0
    return UNCLEAR, 0


def clocks_of(records):
    """The Clock of each (board, life)."""
    clocks = {}
    for record in records:
        at = (record.get("board"), record.get("life"))
        if record["kind"] == "on":
            clocks[at] = Clock(record["at"], None)
        elif record["kind"] == "off":
            clocks[at].off = record["at"]
        elif record["kind"] == "census":
            clocks[at].hz = record["hz"]
            clocks[at].add(record["sent"], record["from"], record["to"], record["got"])
    for clock in clocks.values():
        clock.hz = clock.hz or 1
        clock.close()
    return clocks


def lines_of(records, clocks):
    """A Life for each `begun` of a VM. The same line may come more than once."""
    found = collections.defaultdict(set)
    for record in records:
        if record["kind"] == "line":
            found[record["vm"], record["board"], record["life"], record["begun"]].add((record["n"], record["at"]))
    lives = []
    for (vm, board, life, begun), lines in found.items():
        last = max(at for _, at in lines)
        clock = clocks[board, life]
        lives.append(Life(vm, (board, life), f"{len(lines)} lines", clock.bounds(begun), clock.bounds(last), (begun, last)))
    return lives


def processes_of(records, clocks):
    """A Life for each process of a VM."""
    lives, open_, before = [], {}, {}

    def ended(key, latest):
        vm, board, pid, begin, seen = open_.pop(key)
        clock = clocks[board]
        lives.append(Life(vm, board, f"process {pid}", begin, (clock.earliest(seen), latest), None))

    for record in records:
        if record["kind"] != "census":
            continue
        board = (record["board"], record["life"])
        clock, there = clocks[board], {(board, vm, pid) for vm, pids in record["vms"].items() for pid in pids}
        for key in [key for key in open_ if key[0] == board and key not in there]:
            ended(key, clock.latest(record["to"]))
        for key in there:
            if key not in open_:
                begin = (clock.earliest(before.get(board, 0)), clock.latest(record["to"]))
                open_[key] = (key[1], board, key[2], begin, record["from"])
            else:
                open_[key] = (*open_[key][:4], before[board])
        before[board] = record["from"]
    for key in list(open_):
        ended(key, clocks[key[0]].off)
    return lives


def by_vm(lives):
    found = collections.defaultdict(list)
    for life in sorted(lives, key=lambda life: life.begin):
        found[life.vm].append(life)
    return found


class Report:
    """`problems`: sentences; `lines` and `processes`: the lives by VM, in order."""

    def __init__(self, records, prints=None):
        """`prints`: of these VMs a process without lines is a problem; None: of all."""
        clocks = clocks_of(records)
        self.problems = []
        self.lines, self.processes = by_vm(lines_of(records, clocks)), by_vm(processes_of(records, clocks))
        for at, clock in clocks.items():
            for counter, _ in clock.got:
                if clock.earliest(counter) > clock.latest(counter):
                    self.problems.append(f"the counter of board {at[0]} ran faster than this machine's clock")
                    break
        for lives in self.lines.values():
            self._apart(lives, (OVERLAP, UNCLEAR))
        for lives in self.processes.values():
            self._apart(lives, (OVERLAP,))
        for vm, lives in self.lines.items():
            for life in lives:
                if not any(self._could_be(life, process) for process in self.processes.get(vm, ())):
                    self.problems.append(f"{life}: lines without a process: the list of processes is not to be trusted")
        for vm, lives in self.processes.items():
            for process in lives if prints is None or vm in prints else ():
                if process.end[0] - process.begin[1] > BLIND_S and not any(
                        self._could_be(life, process) for life in self.lines.get(vm, ())):
                    self.problems.append(f"{process}: was there {process.end[0] - process.begin[1]:.1f} s and printed "
                                         "nothing that was seen")

    def _apart(self, lives, bad):
        for index, one in enumerate(lives):
            for other in lives[index + 1:]:
                verdict, _ = judge(one, other)
                if verdict in bad:
                    self.problems.append(f"{verdict}: {one} from {told(one.begin)} to {told(one.end)}, and on board "
                                         f"{other.board} ({other.what}) from {told(other.begin)} to {told(other.end)}")

    @staticmethod
    def _could_be(life, process):
        return (life.board == process.board and life.begin[1] >= process.begin[0] and life.end[0] <= process.end[1])

    def table(self, zero=0):
        """All lives by their lines."""
        text = []
        for vm, lives in sorted(self.lines.items()):
            for before, life in zip([None, *lives], lives):
                verdict = ""
                if before is not None:
                    word, gap = judge(before, life)
                    verdict = f"; {word}, {gap:.2f} s after the one before" if word == APART else f"; {word.upper()}"
                text.append(f"{vm:8} board {life.board[0]}.{life.board[1]}  {told(life.begin, zero)} to "
                            f"{told(life.end, zero)}  {life.what}{verdict}")
        return "\n".join(text)


def told(bounds, zero=0):
    """Seconds, and what they may be off."""
    middle, width = (bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2
    return f"{middle - zero:.2f}±{width:.2f}" if math.isfinite(width) else f"{bounds[0] - zero:.2f} or later"


def read(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    records = read(sys.argv[1])
    report = Report(records)
    zero = min((record["at"] for record in records if record["kind"] == "on"), default=0)
    print(report.table(zero))
    print("\n".join(report.problems) or "never two of one")
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
