"""Snapshots: a VM goes on where it was saved, in both modes of its clock; what was saved, restored and saved
again is the same; fifty clones run at once; a file that was tampered with, a spec or a host that differs, is
refused by name and harms nobody.

On boards whose clock counts instructions: a lease of 100 ms is then enough to start in, and nothing depends on how
busy this machine is."""

import os
import re
import tempfile

from lab import GICV2, GICV3, ICOUNT, Lab, board, expect, spec

lab = Lab("snapshot", guests=("kernel", "tiny"), modules=("tun", "vhost_vsock"), programs=("witness-vm", "alter"),
          options=("--cores", 4, *ICOUNT), variants={"GICv2": GICV2, "GICv3": GICV3})

MEMORY, CLONES, AWAY_S = 96, 50, 5000

ONE = {"name": "one", "memoryMib": MEMORY, "control": "one.sock"}
# Never idle, its vector registers in use.
BUSY = {"name": "busy", "memoryMib": MEMORY, "control": "busy.sock", "vcpus": 2}
# Everything that a VM can have.
FOUR = {"name": "four", "memoryMib": MEMORY, "control": "four.sock", "vcpus": 4, "disks": [{"path": "disk"}],
        "nics": [{"tap": "tap0", "mac": "52:54:00:00:00:04"}], "vsockCid": 7}


def saved(fields, *words):
    return spec(*words, **fields)


def restored(fields, **more):
    """The spec of a VM of the same make that goes on from the files in /tmp/NAME."""
    name = fields["name"]
    return spec(kernel="", initrd="", commandLine="", **fields,
                restore={"state": f"/tmp/{name}/state", "memory": f"/tmp/{name}/memory"}, **more)


FILES = {
    "one.json": saved(ONE, "&tick=0,200"),
    "busy.json": saved(BUSY, "&vectors=0", "&tick=0,200"),
    "four.json": saved(FOUR, "memory.touch=8", "&tick=0,200"),
    "one-restored.json": restored(ONE),
    "busy-restored.json": restored(BUSY),
    "four-restored.json": restored(FOUR),
}

# The first check that needs a snapshot makes it, in /tmp/NAME.
SCRIPT = """
    await() { until grep -q "$2" $1; do sleep 0.1; done; }
    start() {  # NAME SPEC [OVERRIDE...]: a VM with its console at NAME.in (descriptor 3) and NAME.log
        name=$1 file=$2
        shift 2
        rm -f $name.in $name.log
        mkfifo $name.in
        witness-vm run $file "$@" <$name.in >$name.log 2>&1 &
        vm=$!
        exec 3>$name.in
    }
    stop() { witness-vm stop $1.sock; wait $vm; exec 3>&-; }
    have() {  # NAME: its snapshot is there
        [ -e /tmp/disk ] || truncate -s 1M /tmp/disk
        ln -sf /tmp/disk disk
        [ -e /sys/class/net/tap0 ] || tunctl -t tap0 >/dev/null
        [ ! -e /tmp/$1/state ] || return 0
        start $1 $1.json
        await $1.log "TICK 3 "
        witness-vm save --stay-paused $1.sock /tmp/$1
        stop $1
        cat $1.log
        chmod 755 /tmp/$1
        chmod 644 /tmp/$1/state /tmp/$1/memory
    }
"""


def ticks(result, begin, end):
    """Number and monotonic time of the TICKs between two lines of the script."""
    part = result.output.split(f"== {begin}\n", 1)[1].split(f"== {end}\n", 1)[0]
    return [(int(n), int(ms)) for n, ms in re.findall(r"TICK (\d+) counter=\d+ mono_ms=(\d+)", part)]


# The host's time of day is set forward between save and restore, so that the guest's own clock tells the modes
# apart however long anything takes here.
GOES_ON = SCRIPT + "".join(f"""
    echo "== {name} saved"
    have {name}
    date -s @$(($(date +%s) + {AWAY_S})) >/dev/null
    echo "== {name} frozen"
    start {name} {name}-restored.json
    until [ $(grep -c TICK {name}.log) -ge 3 ]; do sleep 0.1; done
    {more}
    cat {name}.log
    stop {name}
    echo "== {name} advanced"
    start {name} {name}-restored.json restore.advanceClock=true backing=shared
    until [ $(grep -c TICK {name}.log) -ge 3 ]; do sleep 0.1; done
    cat {name}.log
    stop {name}
    echo "== {name} end"
""" for name, more in (("one", ""), ("busy", ""), ("four", """
    echo cpus >&3; await four.log "RESULT cpus"
    echo memory.verify=8 >&3; await four.log "RESULT memory.verify"
    echo blk.write=/dev/vda,4 >&3; await four.log "RESULT blk.write"
""")))


@lab.check("ticks go on after a restore, with 1, 2 and 4 vCPUs, the clock frozen or advanced", GOES_ON, limit=300,
           files=FILES)
def _(result):
    for name in ("one", "busy", "four"):
        before = ticks(result, f"{name} saved", f"{name} frozen")
        frozen = ticks(result, f"{name} frozen", f"{name} advanced")
        advanced = ticks(result, f"{name} advanced", f"{name} end")
        expect(before and len(frozen) >= 3 and len(advanced) >= 3, f"{name}: too few ticks")
        for mode, after in (("frozen", frozen), ("advanced", advanced)):
            numbers = [n for n, _ in before[-1:] + after]
            # One tick may have left the guest and not this file when the VM was saved, or the other way round.
            expect(numbers[1] - numbers[0] in (1, 2), f"{name}, {mode}: from tick {numbers[0]} to {numbers[1]}")
            expect(numbers[1:] == list(range(numbers[1], numbers[1] + len(numbers) - 1)), f"{mode}: ticks {numbers}")
        away_ms = 1000 * (AWAY_S - 2)  # date drops the part of a second
        expect(frozen[0][1] - before[-1][1] < away_ms / 2, f"{name}: the frozen clock saw the time away")
        expect(advanced[0][1] - before[-1][1] >= away_ms, f"{name}: the advanced clock did not see it")
    expect(result.word("cpus")["online"] == "4", "four vCPUs")
    result.word("memory.verify")
    result.word("blk.write")
    result.expect_no_line("VECTORS LOST")
    for name in ("one", "busy", "four"):
        # A busy Linux whose clock jumps by an hour says itself that it was stuck so long; a frozen one may not.
        part = result.output.split(f"== {name} frozen\n", 1)[1].split(f"== {name} advanced\n", 1)[0]
        expect(not re.search("Call trace|BUG:|stall", part), f"{name}: its kernel complains: {part}")
    result.expect_status(0)


@lab.check("saved, restored, and saved again it is the same but for its clock and names", SCRIPT + """
    for name in one four; do
        have $name
        start $name $name-restored.json restore.paused=true
        until witness-vm status $name.sock | grep paused; do sleep 0.1; done 2>/dev/null
        rm -rf /tmp/again
        witness-vm save $name.sock /tmp/again
        stop $name
        witness-vm inspect --all /tmp/$name/state >first
        witness-vm inspect --all /tmp/again/state >second
        wc -l first
        diff first second
        cmp -n $((96 << 20)) /tmp/$name/memory /tmp/again/memory && echo "$name: the same memory"
    done
    true
""", limit=200, files=FILES)
def _(result):
    lines = [int(n) for n in re.findall(r"(\d+) first", result.output)]
    expect(len(lines) == 2 and lines[0] > 400 and lines[1] > 1400, f"too little was compared: {lines}")
    # Names of this snapshot; the running counter, and whether the timer is due by it.
    allowed = r"^[-+](saved at|generation|memory-id|vcpu \d+ (CNTVCT|CNTPCT|CNTV_CTL|CNTP_CTL)_EL0|\+\+|--)"
    for line in result.lines:
        expect(not re.match("[-+]", line) or re.match(allowed, line), f"differs: {line}")
    for name in ("one", "four"):
        result.expect_line(f"^{name}: the same memory")


# Overrides, and what the refusal names.
SHAPES = (
    ("vcpus=2", "the snapshot has 1 vCPUs, this VM has 2"),
    ("memoryMib=128", "the snapshot has 96 MiB of memory, this VM has 128 MiB"),
    ("noPmu=true", "performance counters"),
    ("noRng=true", "device 1 of the snapshot is rng, of this VM it is balloon"),
    ("noPowerButton=true", "button is one too many"),
    ("disks[0].path=disk", "device 0 of the snapshot is console, of this VM it is blk0"),
    ("restore.memory=/tmp/one/state", "the memory file cannot be used"),
    ("restore.state=/tmp/one/memory", "the state file cannot be used"),
    ("restore.state=none", "none"),
)


@lab.check("a VM that is made otherwise is refused by what differs", SCRIPT + """
    have one
    have four
    head -c 50000000 /tmp/one/memory >cut
    refused() { echo "== $*"; witness-vm run "$@" </dev/null 2>&1; echo "STATUS $?"; }
""" + "\n".join(f"refused one-restored.json '{change}'" for change, _ in SHAPES) + """
    refused one-restored.json restore.memory=cut
    refused one-restored.json restore.memory=/tmp/four/memory
    refused four-restored.json nics[0].mac=52:54:00:00:00:05
    truncate -s 2M large
    refused four-restored.json disks[0].path=large
""", limit=200, files=FILES)
def _(result):
    said = re.split("^== ", result.output, flags=re.MULTILINE)[-len(SHAPES) - 4:]
    words = [word for _, word in SHAPES] + ["cut off", "belongs to another state file", "MAC address 52:54:00:00:00:04",
                                            "blk0 is of another size"]
    for text, word in zip(said, words):
        expect(word in text and "STATUS 1" in text, f"not refused by {word!r}: {text}")


@lab.check("a state file with one word altered is refused or harmless", SCRIPT + """
    have four
    alter /tmp/four/state /tmp/altered 30 1 damaged witness-vm run four-restored.json restore.state=/tmp/altered \
        backing=shared leaseMs=100
    alter /tmp/four/state /tmp/altered 120 2 forged witness-vm run four-restored.json restore.state=/tmp/altered \
        backing=shared leaseMs=100
    witness-vm run four-restored.json leaseMs=3000 | head -n 1
""", limit=400, files=FILES)
def _(result):
    result.expect_no_line("^BAD")
    result.expect_line("^ALTERED damaged refused=30 ran=0 bad=0")
    said = result.expect_line(r"^ALTERED forged refused=(\d+) ran=(\d+) bad=0")
    expect(int(said[1]) > 10 and int(said[2]) > 10, "some are refused, some are harmless")
    # And the board is none the worse for it.
    result.expect_line("^TICK")


@lab.check(f"{CLONES} clones of one snapshot run at once", SCRIPT + f"""
    have one
    available() {{ sed -n 's/MemAvailable: *//p' /proc/meminfo | cut -d' ' -f1; }}
    cat /tmp/one/memory >/dev/null
    before=$(available)
    for n in $(seq {CLONES}); do
        witness-vm run one-restored.json name=clone-$n control=clone-$n.sock backing=shared </dev/null >clone-$n 2>&1 &
    done
    for n in $(seq {CLONES}); do await clone-$n TICK; done
    echo "KIB $((before - $(available)))"
    for n in $(seq {CLONES}); do until [ $(grep -c TICK clone-$n) -ge 2 ]; do sleep 0.1; done; done
    for n in $(seq {CLONES}); do witness-vm status clone-$n.sock | grep state; done | sort | uniq -c
    for n in $(seq {CLONES}); do witness-vm stop clone-$n.sock; done
    wait
    grep -L TICK clone-*
""", limit=300, files=FILES)
def _(result):
    result.expect_line(f" {CLONES} state +running")
    kib = int(result.expect_line(r"^KIB (\d+)")[1]) / CLONES
    print(f"        snapshot: {kib / 1024:.2f} MiB a clone at its first tick")


@lab.here("a snapshot of one kind of processor is refused on another, by the register")
def _():
    with tempfile.TemporaryDirectory() as folder:
        here = {name: text.replace("/tmp/one/", "/lab/one/") for name, text in FILES.items()}
        for name, text in here.items():
            with open(os.path.join(folder, name), "w", encoding="ascii") as file:
                file.write(text)
        with open(os.path.join(folder, "save"), "w", encoding="ascii") as file:
            file.write(SCRIPT + "cd /lab\nhave one >/dev/null\nmkdir /out/one\ncp /tmp/one/state /out/one/\n")
        words = ["--guest", "kernel", "--guest", "tiny", "--file", f"{lab.bin}/witness-vm:/bin/",
                 "--limit", "200", "--dir", f"{folder}:/lab"]
        process = board(*words, "--out", folder, command=["sh", "/lab/save"])
        said = process.communicate()[0].decode(errors="replace")
        expect(os.path.exists(f"{folder}/one/state"), said)
        open(f"{folder}/one/memory", "wb").close()
        process = board(*words, "--cpu", "cortex-a76", command=["sh", "-c", "cd /lab; witness-vm run one-restored.json"])
        said = process.communicate()[0].decode(errors="replace")
        expect(process.returncode == 1, said)
        expect("another compatibility class than this host: MIDR_EL1 is 0x410fd083 in the snapshot and 0x414fd0b1 here"
               in said, said)


@lab.here("from exec to a running guest")
def _():
    """By the kernel's own trace: the exec, and the first entry into the guest."""
    script = SCRIPT + """
        cd /lab
        have one >/dev/null
        trace=/sys/kernel/debug/tracing
        echo mono >$trace/trace_clock
        echo 1 >$trace/events/sched/sched_process_exec/enable
        echo 1 >$trace/events/kvm/kvm_entry/enable
        for run in 1 2 3 4 5; do
            echo >$trace/trace
            witness-vm run one-restored.json backing=shared leaseMs=200 </dev/null >/dev/null 2>&1
            grep -m 1 -o '[0-9.]*: sched_process_exec: filename=.*witness-vm' $trace/trace
            grep -m 1 -o '[0-9.]*: kvm_entry' $trace/trace
        done
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {**FILES, "script": script}.items():
            with open(os.path.join(folder, name), "w", encoding="ascii") as file:
                file.write(text)
        process = board(*ICOUNT, "--guest", "kernel", "--guest", "tiny", "--limit", "300",
                        "--file", f"{lab.bin}/witness-vm:/bin/", "--dir", f"{folder}:/lab",
                        command=["sh", "/lab/script"])
        said = process.communicate()[0].decode(errors="replace")
    began = [float(t) for t in re.findall(r"([0-9.]+): sched_process_exec", said)]
    entered = [float(t) for t in re.findall(r"([0-9.]+): kvm_entry", said)]
    expect(len(began) == len(entered) == 5, said)
    figures = sorted(1000 * (entry - begin) for begin, entry in zip(began, entered))
    print("        snapshot: Mi from exec to a running guest:", *(f"{figure:.2f}" for figure in figures))


if __name__ == "__main__":
    lab.main()
