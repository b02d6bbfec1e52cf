"""The checker of never_twice.py and vms_soak.py finds what it is for: records with two of one VM, and with one."""

import argparse
import sys

import instances
from lab import expect, tried

HZ = 1000


class Story:
    """Records of made-up boards: board N is switched on at 10 * N, its census takes 0.1 s there and back."""

    def __init__(self):
        self.records = [{"kind": "on", "board": board, "life": 1, "at": 10 * board} for board in (1, 2)]
        self.stood = {1: [], 2: []}  # (from, seconds): when a board's counter stood still

    def counter(self, board, at):
        return round((at - 10 * board - sum(min(length, max(0, at - begin)) for begin, length in self.stood[board])) * HZ)

    def line(self, board, at, begun, printed_at=None, vm="web", n=1):
        """Arrives at `at`; `printed_at` is the counter's, if another."""
        self.records.append({"kind": "line", "board": board, "life": 1, "got": at, "vm": vm, "n": n,
                             "begun": self.counter(board, begun),
                             "at": self.counter(board, at if printed_at is None else printed_at)})

    def census(self, board, at, vms, told=None):
        told = at - 0.1 if told is None else told
        self.records.append({"kind": "census", "board": board, "life": 1, "sent": told, "got": at + 0.1, "hz": HZ,
                             "from": self.counter(board, at), "to": self.counter(board, at), "vms": vms})

    def lives(self, board, begin, end, pid, until=100):
        """The VM web: its lines and its process, and the board's census before and after."""
        for tenth in range(round(begin * 10) - 20, round(until * 10)):
            at = tenth / 10
            self.census(board, at, {"web": [pid]} if begin <= at < end else {})
            if begin < at < end and tenth % 3 == 0:
                self.line(board, at, begin, n=tenth)

    def report(self, **more):
        return instances.Report(self.records, **more)


def apart():
    """One after the other: apart, and by how much"""
    story = Story()
    story.lives(1, 30, 40, 100)
    story.lives(2, 41, 50, 200)
    report = story.report()
    expect(report.problems == [], report.problems)
    verdict, gap = instances.judge(*report.lines["web"])
    expect(verdict == instances.APART and 0.6 < gap < 1.4, f"{verdict} {gap}")
    expect("apart" in report.table(), report.table())


def overlap():
    """Half a second of two is found, by the lines and by the processes"""
    story = Story()
    story.lives(1, 30, 41.5, 100)
    story.lives(2, 41, 50, 200)
    problems = story.report().problems
    expect(sum(problem.startswith("overlap") for problem in problems) == 2, problems)


def late():
    """A line that was printed in time and came late is no second life; one that was printed late is"""
    story = Story()
    story.lives(1, 30, 40, 100)
    story.lives(2, 41, 60, 200)
    story.line(1, 55, 30, printed_at=39.9)
    expect(story.report().problems == [], story.report().problems)
    story.line(1, 55.1, 30, printed_at=55)
    problems = story.report().problems
    expect(any(problem.startswith("overlap") for problem in problems), problems)


def stood():
    """A board whose counter stood still: what is printed after that is put after that"""
    story = Story()
    story.stood[1].append((40, 30))
    for tenth in range(200, 1000):
        at = tenth / 10
        if not 40 <= at < 70:
            story.census(1, at, {"web": [100]} if at < 71 else {})
            if 30 <= at < 71:
                story.line(1, at, 30, n=tenth)
    before = list(story.records)
    story.lives(2, 45, 60, 200)
    problems = story.report().problems
    expect(any(problem.startswith("overlap") for problem in problems), problems)
    # The same, but the VM prints nothing after the pause and its process is gone.
    story.records = [record for record in before if record["kind"] != "line" or record["got"] < 40]
    for record in story.records:
        if record["kind"] == "census" and record["got"] > 70:
            record["vms"] = {}
    story.lives(2, 45, 60, 200)
    expect(story.report().problems == [], story.report().problems)


def dying():
    """A process that a stalled board lists once more when it goes on is on its way out; twice, and it lives"""
    for looks in (1, 2):
        story = Story()
        story.lives(1, 30, 40, 100, until=40)
        for tenth in range(700, 900):
            story.census(1, tenth / 10, {"web": [100]} if tenth < 700 + looks else {})
        story.lives(2, 45, 90, 200)
        found = any(problem.startswith("overlap") for problem in story.report().problems)
        expect(found == (looks == 2), f"{looks}: {story.report().problems}")


def unclear():
    """Where the bounds do not tell, it is not taken for apart"""
    story = Story()
    for at in (20, 90):
        story.census(1, at, {"web": [100]} if at < 90 else {})
        story.census(2, at, {})
    story.records = [record for record in story.records if record["kind"] != "census" or record["board"] != 1]
    story.lives(2, 41, 50, 200)
    story.census(1, 20, {"web": [100]}, told=15)
    story.line(1, 40, 30)
    story.census(1, 90, {}, told=16)
    story.records[-1]["got"] = 95
    problems = story.report().problems
    expect(any(problem.startswith("unclear") for problem in problems), problems)


def plug():
    """What ran on a board that lost its power ended with it"""
    story = Story()
    story.lives(1, 30, 40, 100, until=40)
    story.line(1, 40.05, 30, n=999)  # no census comes after it
    story.lives(2, 40.5, 50, 200)
    expect(any(problem.startswith("unclear") for problem in story.report().problems), "without its end nothing is known")
    story.records.append({"kind": "off", "board": 1, "life": 1, "at": 40.1})
    expect(story.report().problems == [], story.report().problems)


def again():
    """On one board the counter tells exactly"""
    story = Story()
    story.lives(1, 30, 40, 100, until=40)
    story.lives(1, 42, 50, 101)
    expect(story.report().problems == [], story.report().problems)
    story.line(1, 51, 30, n=9)
    expect(any(problem.startswith("overlap") for problem in story.report().problems), "the first one printed again")


def blind():
    """A process that prints nothing, and lines of no process, are said"""
    story = Story()
    for tenth in range(300, 500):
        story.census(1, tenth / 10, {"web": [100]})
        story.census(2, tenth / 10, {})
    expect(any("printed nothing" in problem for problem in story.report().problems), story.report().problems)
    expect(story.report(prints=()).problems == [], "nobody waits for its lines")
    story.line(2, 45, 40)
    expect(any("without a process" in problem for problem in story.report().problems), story.report().problems)


def fast():
    """A counter that runs faster than this machine's clock is not believed"""
    story = Story()
    for at in range(20, 60):
        story.census(1, at, {})
        story.records[-1]["from"] = story.records[-1]["to"] = round((at - 10) * HZ * 1.1)
    expect(any("faster" in problem for problem in story.report().problems), story.report().problems)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bin", nargs="?", help="not used; tests/boards/run.sh gives it to all")
    parser.parse_args()
    failed = 0
    checks = (apart, overlap, late, stood, dying, unclear, plug, again, blind, fast)
    for check in checks:
        failure = tried(check)
        failed += failure is not None
        print(f"{'FAILED' if failure else 'ok    '}  instances: {check.__doc__}" + (f"\n        {failure}" if failure else ""))
    print(f"{len(checks) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
