#!/usr/bin/env python3
"""What corosync's own logs say: were ever two sides of a site quorate at the same time?
`quorum_log.py LOG LOG...` takes the corosync.log of every node of one site and ends with 1 if so.

A node's log gives its state at every moment:
  formed    the ring that it is a member of ("A new membership (1.1d) was formed")
  complete  the ring on which its services went on ("Completed service synchronization")
  quorate   what it last told its users ("within the primary / non-primary component")
A node that has formed a ring tells its users nothing until the ring is complete; corosync holds
them up while it waits for the witness. So until then they act on what they were told on the old ring.

Two nodes are two sides if both are quorate and they share neither the ring that they have formed
(they are joining: one only logs sooner) nor the ring that is complete (they are parting: both
still act on what they were told together, and none has been told anything new).

Nothing else is looked at, neither the witness nor the test, but for the end of a node that was
killed, as such a node cannot write it: the lab adds a line "[LAB   ] killed" once it is dead."""

import datetime
import re
import sys

LINE = re.compile(r"^([A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}\.[0-9]{3}) \S+ +\[(\w+) *\] (.*)$")
KINDS = [
    ("start", "MAIN", re.compile(r"Corosync Cluster Engine.* starting up")),
    ("formed", "TOTEM", re.compile(r"A new membership \(([0-9a-f]+\.[0-9a-f]+)\) was formed")),
    ("complete", "MAIN", re.compile(r"Completed service synchronization, ready to provide service")),
    ("quorate", "QUORUM", re.compile(r"This node is within the primary component")),
    ("lost", "QUORUM", re.compile(r"This node is within the non-primary component")),
    ("end", "LAB", re.compile(r"killed")),
    ("end", "MAIN", re.compile(r"Corosync Cluster Engine exiting")),
]

TICK = 0.004  # seconds; of a kernel with 250 Hz, the slowest that Debian ships


class Event:
    def __init__(self, time, kind, ring):
        self.time = time  # seconds
        self.kind = kind
        self.ring = ring  # of "formed"


class State:
    """A node between two lines of its log."""

    def __init__(self):
        self.formed = None
        self.complete = None
        self.quorate = False

    def after(self, event):
        new = State()
        if event.kind in ("start", "end"):
            return new
        new.formed, new.complete, new.quorate = self.formed, self.complete, self.quorate
        if event.kind == "formed":
            new.formed = event.ring
        elif event.kind == "complete":
            new.complete = new.formed
        else:
            new.quorate = event.kind == "quorate"
        return new

    def __str__(self):
        return f"quorate on ring {self.formed}" + ("" if self.complete == self.formed else
                                                   f" (as told on ring {self.complete})")


def stamp(text):
    """A time of day with milliseconds, as seconds; logs have no year, so every year is 2000."""
    when = datetime.datetime.strptime(f"2000 {text}", "%Y %b %d %H:%M:%S.%f")
    return (when - datetime.datetime(2000, 1, 1)).total_seconds()


def events(path):
    found = []
    with open(path, errors="replace") as log:
        for line in log:
            parts = LINE.match(line)
            if not parts:
                continue
            for kind, subsystem, words in KINDS:
                match = words.match(parts[3]) if subsystem == parts[2] else None
                if match:
                    found.append(Event(stamp(parts[1]), kind, match[1] if match.groups() else None))
    return found


def now():
    """The present in the time of the logs."""
    return stamp(datetime.datetime.now().strftime("%b %d %H:%M:%S.%f"))


def last_state(path):
    state = State()
    for event in events(path):
        state = state.after(event)
    return state


def two_sides(a, b):
    return a.quorate and b.quorate and a.formed != b.formed and a.complete != b.complete


class Overlap:
    def __init__(self, begin, pair, states):
        self.begin = begin
        self.end = None  # the logs end with it
        self.pair = pair
        self.states = states

    def __str__(self):
        length = "until the end of the logs" if self.end is None else f"for {self.end - self.begin:.3f} s"
        what = " while ".join(f"{name} was {state}" for name, state in zip(self.pair, self.states))
        return f"two sides {length}: {what}"


def overlaps(logs):
    """Every time in which two nodes were two sides. `logs` maps names of nodes to paths."""
    merged = sorted(((event.time, order, name, event) for name, path in logs.items()
                     for order, event in enumerate(events(path))), key=lambda item: item[:2])
    states = {name: State() for name in logs}
    open_now = {}
    found = []
    for time, _, name, event in merged:
        states[name] = states[name].after(event)
        for other in logs:
            pair = tuple(sorted((name, other)))
            both = name != other and two_sides(states[name], states[other])
            if both and pair not in open_now:
                open_now[pair] = Overlap(time, pair, [states[who] for who in pair])
                found.append(open_now[pair])
            elif not both and pair in open_now:
                open_now.pop(pair).end = time
    return [overlap for overlap in found if overlap.end is None or overlap.end - overlap.begin > 2 * TICK]


def main(paths):
    logs = {path: path for path in paths}
    for path in paths:
        if not any(event.kind == "quorate" for event in events(path)):
            print(f"{path}: no node of it was ever quorate, or these are not corosync's logs")
            return 2
    found = overlaps(logs)
    for overlap in found:
        print(overlap)
    print(f"{len(found)} times two sides" if found else "never two sides")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
