"""hv.py: witness-vm beside QEMU on one emulated board, in one run; what it says are ratios and budgets.

    python3 tests/bench/hv.py BIN [REPORT.md]

BIN has our arm64 programs. The small kernel is built the first time (tests/boards/smallkernel.py: ten minutes). The board's clock counts instructions, 1 ns each ("Mi": millions of them), so that the
figures repeat within half a percent whatever this machine is doing; they say nothing of caches, memory or
pipelines, and are good for comparing like with like only. Both monitors run the same kernel, initrd and memory."""

import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import textwrap

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "boards"))
import guests  # noqa: E402
import lab  # noqa: E402
import test_snapshot  # noqa: E402: its snapshot of a guest that ticks

MEMORY = 192
PROGRAMS = ("witness-vm", "floor")
RESTORE_MI, CLONE_KIB = 1.5, 512  # budgets
RUNS = 3  # the median counts: the first start on a board is dearer
QEMU = ("qemu-system-aarch64 -M virt,gic-version=2 -accel kvm -cpu host -m 192 -nographic -nodefaults -serial stdio "
        "-device virtio-rng-device")
DISK = "-drive if=none,id=d,file=/dev/ram0,format=raw,cache=none,aio=native -device virtio-blk-device,drive=d"
NET = "-netdev tap,id=n,ifname=tapq,script=no,downscript=no -device virtio-net-device,netdev=n,mac=52:54:00:00:00:02"
BLOCK_WORDS = ("blk.bench=/dev/vda,read,1,3000", "blk.bench=/dev/vda,write,1,2000", "blk.bench=/dev/vda,read,8,3000")
NET_WORDS = ("net=eth0,10.7.0.2/24", "udp.ping=10.7.0.1,7000,2000,64")

# Name, what `board --guest` calls it, budget in Mi, our guest's console: the small kernel has a virtio console built
# in, Debian's is a module, so that its first line comes through the UART, a character for two exits.
KERNELS = (("Debian's kernel", "kernel", 272, "ttyAMA0"), ("small kernel", "small", 34, "hvc0"))
QUIET = dict(test_snapshot.ONE, name="quiet", control="quiet.sock", noPmu=True)
STAYS = ("wait=300", "poweroff")  # there to be looked at when its first line was read


def spec(*words, kernel="kernel", initrd="tiny", **more):
    return lab.spec(kernel=f"/guest/{kernel}", initrd=f"/guest/{initrd}", memoryMib=MEMORY,
                    commandLine=lab.command_line(*words, console=more.pop("console", "hvc0")), **more)


def append(*words, console="ttyAMA0"):
    return f"-append '{lab.command_line(*words, console=console)}'"


def timed(title, command):
    return f"""
        echo "CASE {title}"
        for run in {" ".join(map(str, range(RUNS)))}; do timer GUEST-INIT {MEMORY} {command} </dev/null; done
    """


# By the kernel's own trace: the exec, or what `floor` says of its beginning, and the first entry into the guest. A
# lease ends a clone.
RESTORE = """
    trace=/sys/kernel/debug/tracing
    nine() {  # TITLE COMMAND...
        echo "CASE $1"
        shift
        for run in $(seq 9); do
            echo >$trace/trace
            "$@" </dev/null >said 2>&1
            grep -o 'FLOOR begin=[0-9.]*' said ||
                grep -m 1 -o '[0-9.]*: sched_process_exec: filename=.*witness-vm' $trace/trace
            grep -m 1 -o '[0-9.]*: kvm_entry' $trace/trace
        done
    }
    have one
    have quiet
    echo mono >$trace/trace_clock
    echo 1 >$trace/events/sched/sched_process_exec/enable
    echo 1 >$trace/events/kvm/kvm_entry/enable
    nine restore witness-vm run one-restored.json backing=shared leaseMs=200
    nine "restore open" witness-vm run one-restored.json backing=shared leaseMs=200 sandbox.off=true
    nine "restore quiet" witness-vm run quiet-restored.json backing=shared leaseMs=200
    nine floor floor /tmp/one/state /tmp/one/memory
    nine "floor sealed" floor /tmp/one/state /tmp/one/memory 60001
    echo 0 >$trace/events/sched/sched_process_exec/enable
    echo 0 >$trace/events/kvm/kvm_entry/enable
"""

# What a clone takes of its host's memory, and what of that its process holds: of the snapshot's file, which all share,
# what the guest has written; of all else its share.
CLONES = 20
TAKEN = {"AnonPages": None, "PageTables": "page tables of the process",
         "SecPageTables": "page tables of KVM's second stage", "Slab": "objects of the kernel",
         "KernelStack": "kernel stacks of the threads"}
CLONE = f"""
    echo "CASE clones"
    taken() {{
        for name in {" ".join(TAKEN)}; do
            awk -v name=$name: '$1 == name {{ kib = $2 }} END {{ print kib + 0 }}' /proc/meminfo
        done
    }}
    taken >before
    for n in $(seq {CLONES}); do
        witness-vm run one-restored.json name=clone-$n control=clone-$n.sock backing=shared </dev/null >clone-$n 2>&1 &
        clone=$!
    done
    for n in $(seq {CLONES}); do await clone-$n TICK; done
    taken >after
    echo "TAKEN" $(paste before after | awk '{{ print ($2 - $1) / {CLONES} }}')
    awk '/^[0-9a-f]+-/ {{ file = $6 ~ /memory$/ }}
        /^(Private_Dirty|Private_Clean):/ && file {{ guest += $2 }}
        /^Pss:/ && !file {{ own += $2 }}
        END {{ print "PROCESS " guest, own }}' /proc/$clone/smaps
    for n in $(seq {CLONES}); do witness-vm stop clone-$n.sock; done
    wait
"""


def script():
    lines = ["set -u", "modprobe brd rd_nr=1 rd_size=65536", "ip link set lo up"]
    for tap in ("tapv", "tapq"):
        lines += [f"tunctl -t {tap} >/dev/null"]
    for name, kernel, _, _ in KERNELS:
        lines += [timed(f"start ours {name}", f"witness-vm run start-{kernel}.json"),
                  timed(f"start qemu {name}", f"{QEMU} -kernel /guest/{kernel} -initrd /guest/init "
                        + append(*STAYS))]
    lines += [timed("memory ours", "witness-vm run memory.json"),
              timed("memory qemu", f"{QEMU} {DISK} {NET} -kernel /guest/kernel -initrd /guest/init " + append(*STAYS))]
    lines += ['echo "CASE block ours"', "witness-vm run block.json </dev/null",
              'echo "CASE block exits"', f"timer blk.bench {MEMORY} witness-vm run exits.json </dev/null",
              'echo "CASE block qemu"',
              f"{QEMU} {DISK} -kernel /guest/kernel -initrd /guest/tiny {append(*BLOCK_WORDS, 'poweroff')} </dev/null"]
    for which, tap, command in (("ours", "tapv", "witness-vm run net.json"),
                                ("qemu", "tapq", f"{QEMU} {NET} -kernel /guest/kernel -initrd /guest/tiny "
                                 + append(*NET_WORDS, "poweroff"))):
        lines += [f'echo "CASE net {which}"', f"ip addr add 10.7.0.1/24 dev {tap}; ip link set {tap} up",
                  "guest udp.echo=7000 >/dev/null 2>&1 & echo=$!", f"{command} </dev/null",
                  f"kill $echo; ip addr flush dev {tap}; ip link set {tap} down"]
    lines += [textwrap.dedent(part) for part in (test_snapshot.SCRIPT, 'echo "CASE snapshot"', RESTORE, CLONE)]
    lines += ['echo "CASE size"', "ls -l /bin/witness-vm $(which qemu-system-aarch64)",
              "echo libraries $(LD_TRACE_LOADED_OBJECTS=1 /lib/ld-linux-aarch64.so.1 $(which qemu-system-aarch64) "
              "| grep -c '=> /')"]
    return "\n".join(lines)


def files():
    disk = [{"path": "/dev/ram0", "direct": True, "noLock": True}]
    made = {
        "block.json": spec(*BLOCK_WORDS, "poweroff", disks=disk),
        "exits.json": spec("blk.bench=/dev/vda,read,1,20000", "poweroff", disks=disk),
        "net.json": spec(*NET_WORDS, "poweroff", nics=[{"tap": "tapv"}]),
    }
    for _, kernel, _, console in KERNELS:
        made[f"start-{kernel}.json"] = spec(*STAYS, kernel=kernel, initrd="init", console=console)
    made.update({name: test_snapshot.FILES[name] for name in ("one.json", "one-restored.json")})
    made["quiet.json"] = test_snapshot.saved(QUIET, "&tick=0,200")
    made["quiet-restored.json"] = test_snapshot.restored(QUIET)
    made["memory.json"] = spec(*STAYS, initrd="init", console="ttyAMA0", disks=disk, nics=[{"tap": "tapv"}])
    return made


# What the run says, in words that hold whatever it says.
RESTORES = """
## What a restore costs

In Mi, nine of each; clones of the snapshot of a guest with one vCPU.

| | median | from | to |
| --- | --- | --- | --- |
"""
FLOOR = """
The last two are of `tests/bench/floor.c`, which makes the calls to KVM that a restore cannot do without, by
witness-vm's own functions, from when its files are open and parsed. The budget came from a probe that had no sandbox,
control socket, spec, devices or threads. Between the last row and the first lie these, exec, and the check of the state
file.
"""
FLOOR_SEALED = """In the sandbox these calls alone are above the budget: the kernel's own part does not let it be met
as long as each VM makes its sandbox anew.
"""
PMU_WAITS = """
{} of nine restores with a PMU took more than twice their median, and none of nine without one. It is a sleep: KVM
before Linux 6.4 finds the host's PMU by making a perf event, the first one after a quiet second waits for the other
processors (synchronize_rcu), and a board whose clock counts instructions lets the time pass.
"""
MEMORY_GOES = """
## Where a clone's memory goes

In KiB, of {clones} clones of a {memory} MiB guest with one vCPU at its first tick.

| | |
| --- | --- |
"""


class Report:
    def __init__(self):
        self.rows, self.missed, self.more = [], [], ""

    def add(self, what, ours, theirs, unit, more_is_better=False, budget=None, note=""):
        """`budget`: a function of (ours, theirs) that says whether it is met, and its words."""
        ratio = ""
        if theirs:
            ratio = f"{(ours / theirs if more_is_better else theirs / ours):.2f}"
        verdict = ""
        if budget:
            met, words = budget
            verdict = f"{words}: {'met' if met(ours, theirs) else 'MISSED'}"
            if not met(ours, theirs):
                self.missed.append(f"{what}: {ours:,.2f} {unit} ({words})")
        self.rows.append((what, f"{ours:,.2f} {unit}", f"{theirs:,.2f} {unit}" if theirs else "-", ratio, verdict, note))

    def text(self):
        head = ("", "witness-vm", "QEMU", "ratio", "budget", "")
        lines = ["# witness-vm beside QEMU", "",
                 "Written by `make bench-hv`: one emulated Pi-4-class board (Cortex-A72, GICv2, Debian's kernel) whose "
                 "clock counts", "instructions (Mi: millions). A ratio above 1 is in favour of witness-vm. No caches, no "
                 "pipeline, no memory latency: only", "like with like, and no metal was measured.", ""]
        if self.missed:
            lines += ["**Budgets missed:** " + "; ".join(self.missed) + ".", ""]
        else:
            lines += ["All budgets are met.", ""]
        lines += ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *self.rows)]
        return "\n".join(lines) + "\n" + self.more


def cases(result):
    found, name = {}, None
    for line in result.lines:
        if line.startswith("CASE "):
            name = line[5:]
            found[name] = []
        elif name:
            found[name].append(line)
    return {name: lab.Result("\n".join(lines), 0, 0, False) for name, lines in found.items()}


def start_figures(result):
    runs = result.objects()
    lab.expect(runs, f"no figure of the timer:\n{result.output}")
    return (statistics.median(run["marker_ns"] for run in runs) / 1e6, statistics.median(run["pss_kib"] for run in runs))


def judge_memory(report, found):
    _, ours = start_figures(found["memory ours"])
    _, theirs = start_figures(found["memory qemu"])
    report.add("own memory (PSS without guest memory): disk, network card, console, rng", ours, theirs, "KiB",
               budget=(lambda o, t: o <= 1024, "at most 1,024 KiB"))


def judge_start(report, found):
    for name, kernel, budget, _ in KERNELS:
        ours, _ = start_figures(found[f"start ours {name}"])
        theirs, _ = start_figures(found[f"start qemu {name}"])
        direct = lab.direct_boot(guests.PARTS[kernel][0](), guests.init(), "poweroff", memory_mib=MEMORY)
        said = direct.expect_line(r"GUEST-INIT .* counter=(\d+) hz=(\d+)")
        bare = int(said.group(1)) * 1e3 / int(said.group(2))
        report.add(f"start to the guest's init, {name}", ours, theirs, "Mi",
                   budget=(lambda o, t, most=budget: o <= most, f"at most {budget} Mi"),
                   note=f"the kernel alone on the board: {bare:,.1f} Mi")


def judge_block(report, found):
    ours, theirs = found["block ours"].words("blk.bench"), found["block qemu"].words("blk.bench")
    names = ("4 KiB random reads, depth 1", "4 KiB random writes, depth 1", "4 KiB random reads, depth 8")
    for number, name in enumerate(names):
        budget = (lambda o, t: o >= 2 * t, "at least twice QEMU's") if number == 0 else None
        report.add(name, float(ours[number]["ops_per_1e9"]), float(theirs[number]["ops_per_1e9"]), "per 1e9",
                   more_is_better=True, budget=budget, note="RAM disk, O_DIRECT")
    exits = found["block exits"].objects()
    lab.expect(exits, f"no exits were counted:\n{found['block exits'].output}")
    report.add("exits to user space for each read", exits[-1]["mmio_exit_user"] / 20000, 0, "",
               budget=(lambda o, t: o <= 0.05, "at most 0.05"), note="of a whole run, boot included")


def judge_net(report, found):
    trips = [float(found[f"net {which}"].word("udp.ping")["per_1e9"]) for which in ("ours", "qemu")]
    report.add("UDP round trips with the board, 64 bytes", trips[0], trips[1], "per 1e9", more_is_better=True)


def judge_size(report, found):
    sizes = [int(size) / 1e6 for size in re.findall(r"root\s+root\s+(\d+)", found["size"].output)]
    libraries = int(found["size"].expect_line(r"libraries (\d+)").group(1))
    report.add("program", sizes[0], sizes[1], "MB", note=f"shared libraries: 0 and {libraries}")


def restores(case):
    """Mi from the beginning to the first entry into the guest, sorted."""
    began = [float(t) for t in re.findall(r"([0-9.]+): sched_process_exec|FLOOR begin=([0-9.]+)", case.output)
             for t in t if t]
    entered = [float(t) for t in re.findall(r"([0-9.]+): kvm_entry", case.output)]
    lab.expect(len(began) == len(entered) == 9, f"not nine restores:\n{case.output}")
    return sorted(1000 * (entry - begin) for begin, entry in zip(began, entered))


def judge_restore(report, found):
    names = ("restore", "restore open", "restore quiet", "floor", "floor sealed")
    figures = {name: restores(found[name]) for name in names}
    median = {name: statistics.median(values) for name, values in figures.items()}
    report.add("restore of a clone, exec to its guest's first instruction, 1 vCPU", median["restore"], 0, "Mi",
               budget=(lambda o, t: o <= RESTORE_MI, f"at most {RESTORE_MI} Mi"),
               note=f"median of nine: {figures['restore'][0]:.2f} to {figures['restore'][-1]:.2f}")
    report.more += RESTORES
    for name, what in (("restore", "`witness-vm run SPEC`, from exec"),
                       ("restore open", "the same without its sandbox"),
                       ("restore quiet", "the same of a guest without a PMU (`noPmu`)"),
                       ("floor", "the calls to KVM alone"), ("floor sealed", "the same in the sandbox of witness-vm")):
        report.more += f"| {what} | {median[name]:.2f} | {figures[name][0]:.2f} | {figures[name][-1]:.2f} |\n"
    report.more += FLOOR
    if median["floor sealed"] > RESTORE_MI:
        report.more += FLOOR_SEALED
    late = [sum(figure > 2 * median[name] for figure in figures[name]) for name in ("restore", "restore quiet")]
    if late[0] > 0 and late[1] == 0:
        report.more += PMU_WAITS.format(late[0])


def judge_clones(report, found):
    said = found["clones"]
    taken = dict(zip(TAKEN, map(float, said.expect_line(r"^TAKEN (.*)").group(1).split())))
    guest, own = map(int, said.expect_line(r"^PROCESS (\d+) (\d+)").groups())
    total = sum(taken.values())
    report.add("memory a clone at its first tick, all that its host gives", total, 0, "KiB",
               budget=(lambda o, t: o <= CLONE_KIB, f"at most {CLONE_KIB} KiB"),
               note=f"of {CLONES}; its process holds {guest + own} KiB of it, what its guest wrote included")
    report.more += MEMORY_GOES.format(clones=CLONES, memory=test_snapshot.MEMORY)
    rows = [("written by the guest", guest), ("the process's own", taken["AnonPages"] - guest)]
    rows += [(what, taken[name]) for name, what in TAKEN.items() if what]
    report.more += "".join(f"| {what} | {kib:.0f} |\n" for what, kib in (*rows, ("all", total)))
    rest = guest + taken["PageTables"] + taken["SecPageTables"]
    report.more += f"\nWhat the guest writes and the two sets of tables, {rest:.0f} KiB, are not the monitor's.\n"


def judge(result):
    """The document that a run gives."""
    report, found = Report(), cases(result)
    judge_start(report, found)
    judge_memory(report, found)
    judge_block(report, found)
    judge_net(report, found)
    judge_restore(report, found)
    judge_clones(report, found)
    judge_size(report, found)
    return report.text()


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    document = sys.argv.pop(2) if len(sys.argv) > 2 else None
    stripped = tempfile.TemporaryDirectory(prefix="bench-hv-")
    for program in PROGRAMS:  # as packages install them
        subprocess.run(["aarch64-linux-gnu-strip", "-o", f"{stripped.name}/{program}", f"{sys.argv[1]}/{program}"],
                       check=True)
    sys.argv[1] = stripped.name
    bench = lab.Lab("bench-hv", guests=[kernel for _, kernel, _, _ in KERNELS] + ["init", "tiny", "timer", "program"],
                    packages=("qemu-system-arm",), modules=("brd", "tun"), programs=PROGRAMS,
                    options=("--icount", "--memory", "1500"))

    @bench.check("witness-vm beside QEMU", script(), limit=1800, files=files())
    def _(result):
        text = judge(result)
        print(text)
        if document:
            pathlib.Path(document).write_text(text)

    bench.main()


if __name__ == "__main__":
    main()
