#!/usr/bin/env python3
"""`report.py`: writes docs/BENCHMARKS.md from docs/benchmarks/*.json, the newest result of each bench: bench.json (run.py),
scale.json (scale.py), etcd.json (etcd.py), arm64.json (arm64.py). Each keeps its result there and calls it;
nobody writes numbers into these files by hand. A result stays until the same bench has a newer one."""

import datetime
import json
import os
import platform
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DOCUMENT = os.path.join(HERE, "..", "..", "docs", "BENCHMARKS.md")
RESULTS = os.path.join(HERE, "..", "..", "docs", "benchmarks")


def machine(load_before):
    """What a reader must know of the machine; kept with every result."""
    with open("/proc/cpuinfo") as info:
        names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    return {"cpus": os.cpu_count(), "cpu": names[0] if names else platform.machine(), "arch": platform.machine(),
            "load_before": round(load_before, 1), "load_after": round(os.getloadavg()[0], 1),
            "when": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}


def at(tree, path):
    for key in path.split("/"):
        if not isinstance(tree, dict) or tree.get(key) is None:
            return None
        if tree.get("count") == 0:
            return None  # percentiles of no samples
        tree = tree[key]
    return tree


def number(value, unit):
    if value is None:
        return "-"
    return f"{value:.3g} {unit}" if abs(value) < 100 else f"{value:.0f} {unit}"


def ratio(ours, theirs):
    if ours is None or theirs is None or ours <= 0 or theirs <= 0:
        return "-"
    return f"1 : {theirs / ours:.3g}" if theirs >= ours else f"{ours / theirs:.3g} : 1"


def markdown(rows):
    head, *rest = rows
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rest]) + "\n"


# --- beside corosync-qnetd ---

LINES = [  # what, where in a side's result, factor, unit
    ("all attached", "attach/seconds", 1, "s"),
    ("CPU per attach", "attach/cpu_ms_per_attach", 1, "ms"),
    ("memory per session", "attach/kib_per_session", 1.024, "kB"),
    ("echo p50 while they attach", "attach/echo_while_attaching/p50_us", 1e-3, "ms"),
    ("echo p99 while they attach", "attach/echo_while_attaching/p99_us", 1e-3, "ms"),
    ("CPU for 1,000 heartbeats", "heartbeats/cpu_s_per_1000", 1, "s"),
    ("echo p50, nothing else to do", "heartbeats/echo/p50_us", 1e-3, "ms"),
    ("echo p99", "heartbeats/echo/p99_us", 1e-3, "ms"),
    ("echo, longest", "heartbeats/echo/max_us", 1e-3, "ms"),
    ("all split: decision p50", "storm/split/p50_us", 1e-3, "ms"),
    ("all split: decision p99", "storm/split/p99_us", 1e-3, "ms"),
    ("all split: the last decision", "storm/split/max_us", 1e-3, "ms"),
    ("CPU per split", "storm/cpu_ms_per_split", 1, "ms"),
    ("all reset: all back", "reattach/seconds", 1, "s"),
    ("CPU per session that comes back", "reattach/cpu_ms_per_session", 1, "ms"),
    ("no sites: memory of one server", "idle/rss_kib_each", 1.024e-3, "MB"),
    ("no sites: CPU of one server, of a core", "idle/core_percent_each", 1, "%"),
]


def case_rows(case):
    ours, theirs = case["boards"], case.get("corosync_qnetd")
    rows = [(f"{case['sites']} sites, {'TLS' if case['tls'] else 'in the clear'}", "three boards", "corosync-qnetd",
             "ours : qnetd")]
    for what, path, factor, unit in LINES:
        pair = [None if value is None else value * factor for value in (at(ours, path), at(theirs, path))]
        # A phase that did not come to rest has a time, but not the one that is asked for.
        rows.append((what, number(pair[0], unit), number(pair[1], unit), ratio(*pair)))
    return rows


def case_notes(case):
    notes = []
    for name, side in (("three boards", case["boards"]), ("corosync-qnetd", case.get("corosync_qnetd"))):
        if side is None:
            continue
        if side["violations"]:
            notes.append(f"{name}: two sides of a site held the vote {side['violations']} times")
        if side.get("deaths"):
            where = ", the last time " + ("while all came back" if "storm" in side else "while they attached")
            notes.append(f"{name} failed (died, or let nobody in) in {side['deaths']} of the attempts" + ("" if side["alive"] else where))
        for phase in ("attach", "storm", "reattach"):
            if phase in side and not side[phase]["settled"]:
                whole = f", {side[phase]['sites_whole']} sites were attached" if phase == "attach" else ""
                notes.append(f"{name} did not come to rest in the phase \"{phase}\"{whole}")
    return notes


def side_by_side(result):
    """For the terminal."""
    text = [f"{result['cpus']} CPUs, load {result['load_before']} when it began; {result['seconds']:.0f} s in all"]
    for case in result["cases"]:
        text.append("")
        text += [f"{row[0]:<42}{row[1]:>16}{row[2]:>17}{row[3]:>15}" for row in case_rows(case)]
        text += [f"note: {note}" for note in case_notes(case)]
    return "\n".join(text)


# --- beside etcd ---

ETCD_LINES = [
    ("no load: memory of a member", "rss_kib_each_idle", 1.024e-3, "MB"),
    ("no load: CPU of a member, of a core", "idle/core_percent_each", 1, "%"),
    ("no load: written by all members in a minute", "idle/bytes_written", 1e-3, "kB"),
    ("after the writes: memory of a member", "rss_kib_each", 1.024e-3, "MB"),
]
ETCD_WRITES = [
    ("writes a second", "per_second", 1, ""),
    ("p50", "p50_us", 1e-3, "ms"),
    ("p99", "p99_us", 1e-3, "ms"),
    ("CPU of all members for a write", "cpu_ms_per_write", 1, "ms"),
    ("written to the disk for a write, all members", "disk_bytes_per_write", 1e-3, "kB"),
]


def etcd_rows(result):
    rows = [("200 bytes, durable on two of three, HTTPS", "three boards", "etcd", "ours : etcd")]
    lines = list(ETCD_LINES)
    for outstanding in result["boards"]["writes"]:
        lines += [(f"{outstanding} outstanding: {what}", f"writes/{outstanding}/{path}", factor, unit)
                  for what, path, factor, unit in ETCD_WRITES]
    for what, path, factor, unit in lines:
        pair = [None if value is None else value * factor for value in (at(result["boards"], path), at(result["etcd"], path))]
        rows.append((what, number(pair[0], unit), number(pair[1], unit), ratio(*pair)))
    return rows


def beside_etcd(result):
    """For the terminal."""
    return "\n".join(f"{row[0]:<66}{row[1]:>14}{row[2]:>14}{row[3]:>14}" for row in etcd_rows(result))


# --- arm64 ---

def arm64_rows(result):
    rows = [("in an emulated Arm board", "ours : qnetd")]
    for case in result["cases"]:
        kind = f"{case['sites']} sites, {'TLS' if case['tls'] else 'in the clear'}"
        for what, path, factor, unit in LINES:
            pair = (at(case["boards"], path), at(case.get("corosync_qnetd") or {}, path))
            if unit in ("s", "ms", "kB") and None not in pair:
                rows.append((f"{kind}: {what}", ratio(*pair)))
    rows.append(("witness-agent that holds a lease: memory it is resident with", number(result["agent"]["rss_kib"] * 1.024e-3, "MB")))
    rows.append(("the same, what it shares counted in parts (PSS)", number(result["agent"]["pss_kib"] * 1.024e-3, "MB")))
    return rows


# --- budgets ---

def biggest_tls(bench):
    cases = [case for case in (bench or {}).get("cases", []) if case["tls"]]
    return cases[-1]["boards"] if cases else {}


def kilobytes(kibibytes, factor=1):
    return None if kibibytes is None else kibibytes * 1.024 * factor


def budgets(bench, scale):
    """(what, budget, unit, measured): more than the budget is a miss, None was not measured."""
    ours, scale = biggest_tls(bench), scale or {}
    attached = at(scale, "attach/sessions")
    asked = scale.get("sites", 10000)
    split = at(scale, "storm/split/max_us")
    everywhere = asked == 10000  # a smaller run of scale.py says nothing about these

    def big(value):
        return value if everywhere else None

    return [
        ("sessions missing of 20,000 (10,000 sites, TLS, client certificates, 3 boards)", 0, "",
         big(None if attached is None else 20000 - attached)),
        ("memory per session", 20, "kB", kilobytes(at(scale, "attach/kib_per_session"))),
        ("elections while they attach", 0, "", big(at(scale, "attach/api/elections"))),
        ("API reads unanswered while they attach", 0, "", big(at(scale, "attach/api/unanswered"))),
        ("CPU per session of a killed board that comes to the others", 3, "ms", at(scale, "killed/cpu_ms_per_session")),
        ("10,000 sites split at once: the last one decided, every grant durable", 5, "s",
         big(None if split is None else split * 1e-6)),
        ("times that two sides of a site held the vote", 0, "", scale.get("violations")),
        ("import of 10,000 sites", 60, "s", at(ours, "import/seconds")),
        ("list of 10,000 sites over HTTPS", 0.2, "s", at(ours, "list/seconds")),
        ("bytes written to disk while nothing happens", 0, "B", at(ours, "idle_minute/bytes_written")),
        ("memory of a board without sites", 25, "MB", kilobytes(at(ours, "idle/rss_kib_each"), 1e-3)),
        ("CPU of a board without sites, of a core", 1, "%", at(ours, "idle/core_percent_each")),
    ]


def verdict(rows):
    missed = [f"{what}: {number(value, unit).strip()} instead of {number(budget, unit).strip()}"
              for what, budget, unit, value in rows if value is not None and value > budget]
    absent = [what for what, _, _, value in rows if value is None]
    text = "**Budgets missed:** " + "; ".join(missed) + ".\n" if missed else "No budget that was measured was missed.\n"
    if absent:
        text += "\nNot measured in these runs: " + "; ".join(absent) + ".\n"
    return text


def busy(*results):
    loads = [result["load_before"] for result in results if result]
    if not loads or max(loads) < 1:
        return ""
    return f"\nThe machine was busy with other work: load {min(loads)} to {max(loads)} before the runs began.\n"


def budget_rows(rows):
    table = [("budget", "at most", "measured", "")]
    for what, budget, unit, value in rows:
        table.append((what, number(budget, unit).strip(), number(value, unit).strip(),
                      "" if value is None else "**missed**" if value > budget else "kept"))
    return table


# --- the document ---

def machine_words(name, result):
    if result is None:
        return f"- {name}: no result.\n"
    return (f"- {name}: {result['when']}, {result['cpus']} CPUs ({result['cpu']}, {result['arch']}), load "
            f"{result['load_before']} before and {result['load_after']} after, {result['seconds']:.0f} s.\n")


def scale_words(scale):
    if scale is None:
        return "Not measured: run `make scale`.\n"
    attach, storm, killed = scale.get("attach", {}), scale.get("storm", {}), scale.get("killed", {})
    rows = [("phase", "")]

    def row(what, tree, path, factor, unit):
        value = at(tree, path)
        rows.append((what, number(None if value is None else value * factor, unit)))

    rows.append(("sites, sessions", f"{scale['sites']}, {attach.get('sessions', '-')}"))
    rows.append(("connects under way at once, each of two generators", str(scale.get("in_flight", 64) or "all")))
    row("all attached", attach, "seconds", 1, "s")
    rows.append(("sessions per board", ", ".join(str(count) for count in attach.get("per_board", []))))
    row("connections lost on the way", attach, "connections_lost", 1, "")
    row("CPU per session, sum of the boards", attach, "cpu_ms_per_session", 1, "ms")
    row("memory per session", attach, "kib_per_session", 1.024, "kB")
    row("API reads meanwhile", attach, "api/asked", 1, "")
    row("the longest of them", attach, "api/worst_s", 1, "s")
    row("elections meanwhile", attach, "api/elections", 1, "")
    row("CPU for 1,000 heartbeats", scale, "heartbeats/cpu_s_per_1000", 1, "s")
    row("CPU of three boards for all heartbeats, of a core", scale, "heartbeats/core_percent", 1, "%")
    row("echo p50", scale, "heartbeats/echo/p50_us", 1e-3, "ms")
    row("echo p99", scale, "heartbeats/echo/p99_us", 1e-3, "ms")
    row("all split: decision p50", storm, "split/p50_us", 1e-6, "s")
    row("all split: decision p99", storm, "split/p99_us", 1e-6, "s")
    row("all split: the last decision", storm, "split/max_us", 1e-6, "s")
    row("sites with exactly one side then", storm, "one_side", 1, "")
    row("CPU per split, sum of the boards", storm, "cpu_ms_per_split", 1, "ms")
    row("a board is killed: sessions that move", killed, "sessions", 1, "")
    row("all of them attached again", killed, "seconds", 1, "s")
    row("CPU per session, sum of the others", killed, "cpu_ms_per_session", 1, "ms")
    row("memory of the two boards that are left", scale, "afterwards/kib_full", 1.024e-3, "MB")
    row("the same, 8 s after all sites have gone", scale, "afterwards/kib_empty", 1.024e-3, "MB")
    row("two sides of a site held the vote", scale, "violations", 1, "times")
    text = markdown(rows)
    for promise in scale.get("broken_promises", []):
        text += f"\n**Broken promise:** {promise}\n"
    return text


ABOUT = """## How it is measured

`make bench` puts three boards beside Debian's corosync-qnetd on one machine, one after the other, with one load
generator (`tests/bench`: two nodes for each site, as corosync-qdevice behaves), over TLS 1.3 with a client
certificate for each site and in the clear, and prints both sides with their ratio. `make scale` attaches 10,000 sites
to three boards. `make bench-etcd` puts three boards beside three members of Debian's etcd. Each keeps its result in
`docs/benchmarks` and writes this file again from the newest of all. All listen on loopback addresses of their own; an
installed corosync-qnetd or etcd is not touched.

No time is asserted: machines differ, and so do two runs on a busy one. Where a run shared its machine with other
work (the loads below say so), ratios hold better than figures. A run fails for a broken promise only:
two sides of a site with the vote at one moment, an election or an unanswered API read while the fleet
attaches, a grant that is not on two boards, a board that writes to its disk while nothing happens.

- CPU and memory of ours are the sum over three boards, which share the cores with the load generator (lines
  "of one server" aside); each grant is on the disks of two boards before it is told. corosync-qnetd keeps nothing.
- **all attached**: from the first connect until both nodes of every site hold the vote; 64 connects are under way at
  once for each generator. (More would measure the generators: they share the cores. In `make scale` they give way
  to the boards by 9 steps of nice, since a fleet has processors of its own.) **memory per session**: growth of resident memory, divided by the connections.
- **echo while they attach**: round trips of 40 other nodes, attached before, with a heartbeat of 4 s.
- **all split**: in every site the nodes lose each other at the same moment. A site is decided when one node
  has its ACK and the other its NACK.
- **all reset**: the nodes sleep 2.386 s after it, as the real program's unseeded random number has it.
- The boards' lines are measured with 10,000 sites in the model. **written to disk**: `write_bytes` in `/proc/PID/io` and
  files below the data directories whose size or time of change differs.
- corosync-qnetd runs with `listen_backlog=4096` (10 as shipped, which would compare retries, not programs) and certificates
  made as `corosync-qnetd-certutil -i` makes them (RSA 2048; ours are P-256, which is part of the difference
  in the CPU per attach).
- etcd takes its writes by the JSON gateway (its gRPC clients cost it less), ours by the API; one HTTP/1.1 client serves
  both, over TLS with a P-256 certificate, and the leader is asked. Ours checks, replicates and applies a change of a
  site's labels and records an event for the audit; etcd puts a value.
"""


def keep(name, result):
    """The newest result of a bench; the document follows."""
    os.makedirs(RESULTS, exist_ok=True)
    with open(os.path.join(RESULTS, name), "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    write()


def load_result(name):
    path = os.path.join(RESULTS, name)
    if not os.path.exists(path):
        return None
    with open(path) as file:
        return json.load(file)


def write(document=DOCUMENT):
    bench, scale, etcd, arm64 = (load_result(name) for name in ("bench.json", "scale.json", "etcd.json", "arm64.json"))
    rows = budgets(bench, scale)
    text = ["# Benchmarks\n", verdict(rows) + busy(bench, scale, etcd),
            "Written by the runs themselves (tests/bench/report.py).\n", markdown(budget_rows(rows)),
            "## Ten thousand sites on three boards\n", scale_words(scale), "## Beside corosync-qnetd\n"]
    for case in (bench or {}).get("cases", []):
        text.append(markdown(case_rows(case)))
        text += [f"- {note}\n" for note in case_notes(case)]
    if bench is None:
        text.append("Not measured: run `make bench`.\n")
    text += ["## Beside etcd\n", markdown(etcd_rows(etcd)) if etcd else "Not measured: run `make bench-etcd`.\n"]
    text += ["## On arm64\n", markdown(arm64_rows(arm64)) if arm64 else "Not measured: run `make bench-arm64`.\n"]
    text += [ABOUT, "## The runs\n", machine_words("beside corosync-qnetd", bench) +
             machine_words("ten thousand sites", scale) + machine_words("beside etcd", etcd) + machine_words("on arm64 (the emulator's host)", arm64)]
    with open(document, "w") as file:
        file.write("\n".join(text))


if __name__ == "__main__":
    write()
