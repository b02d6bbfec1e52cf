"""Snapshots: a VM goes on where it was saved, in both modes of its clock; what was saved, restored and saved
again is the same; fifty clones run at once; a file that was tampered with, a spec or a host that differs, is
refused by name and harms nobody.

On boards whose clock counts instructions: a lease of 100 ms is then enough to start in, and nothing depends on how
busy this machine is. What runs costs by its instructions, and what is idle nothing: a guest that spins ticks often, and
none is away for longer than Linux takes without a complaint. The boards have one core: the emulator runs one at a time
anyway, and vCPUs on several that wait for each other's copies of a shared page waited for its turns."""

import base64
import os
import re
import tempfile

from lab import GICV2, GICV3, ICOUNT, Lab, board, expect, spec

lab = Lab("snapshot", guests=("kernel", "tiny", "program", "bare"), modules=("tun", "bridge", "vhost_vsock"),
          packages=("diffutils",), programs=("witness-vm", "alter"),
          options=("--cores", 1, *ICOUNT), variants={"GICv2": GICV2, "GICv3": GICV3})

MEMORY, CLONES, AWAY_S = 96, 50, 15

ONE = {"name": "one", "memoryMib": MEMORY, "control": "one.sock"}
# Never idle, its vector registers in use.
BUSY = {"name": "busy", "memoryMib": MEMORY, "control": "busy.sock", "vcpus": 2}
# Everything that a VM can have, and a connection to the board.
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
    "busy.json": saved(BUSY, "&vectors=0", "&tick=0,40"),
    "four.json": saved(FOUR, "memory.touch=8", "net=eth0,10.1.0.2/24", "&vsock.hold=2,7005", "&tick=0,200"),
    "one-restored.json": restored(ONE),
    "busy-restored.json": restored(BUSY),
    "four-restored.json": restored(FOUR),
}

# The first check that needs a snapshot makes it, in /tmp/NAME.
SCRIPT = """
    await() { until grep -q "$2" $1; do usleep 20000; done; }
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
    fresh() {  # the disk as it was when the VM was saved; whole seconds, which any copy keeps
        [ -e /tmp/as-saved ] || { truncate -s 1M /tmp/as-saved; touch -d "2026-01-01 00:00:00" /tmp/as-saved; }
        cp -p /tmp/as-saved /tmp/disk
        ln -sf /tmp/disk disk
    }
    have() {  # NAME: its snapshot is there
        fresh
        [ -e /sys/class/net/tap0 ] || { tunctl -t tap0 >/dev/null; ifconfig tap0 up; }
        [ ! -e /tmp/$1/state ] || return 0
        if [ $1 = four ]; then guest vsock.echo=7005 >/dev/null & fi
        start $1 $1.json
        await $1.log "TICK 3 "
        [ $1 != four ] || await four.log "STREAM held"
        witness-vm save --stay-paused $1.sock /tmp/$1
        stop $1
        cat $1.log
        chmod 755 /tmp/$1
        chmod 644 /tmp/$1/state /tmp/$1/memory
    }
"""


# The state file of the VM `one`, by the kind of processor that it was saved on.
STATES = {}
A72, A76 = "0xd08", "0xd0b"


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
    until [ $(grep -c TICK {name}.log) -ge 3 ]; do usleep 20000; done
    {more}
    cat {name}.log
    stop {name}
    echo "== {name} advanced"
    fresh
    start {name} {name}-restored.json restore.advanceClock=true {advanced}
    until [ $(grep -c TICK {name}.log) -ge 3 ]; do usleep 20000; done
    cat {name}.log
    stop {name}
    echo "== {name} end"
""" for name, advanced, more in (("one", "backing=shared", ""), ("busy", "backing=shared", ""), ("four", "", """
    echo cpus >&3; await four.log "RESULT cpus"
    echo memory.verify=8 >&3; await four.log "RESULT memory.verify"
    echo blk.write=/dev/vda,4 >&3; await four.log "RESULT blk.write"
"""))) + """
    echo "PART $(grep -m 1 "CPU part" /proc/cpuinfo)"
    base64 /tmp/one/state | sed 's/^/STATE /'
"""


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
    STATES[result.expect_line("^PART .*(0x[0-9a-f]+)$")[1]] = base64.b64decode(
        "".join(line[6:] for line in result.lines if line.startswith("STATE ")))
    for name in ("one", "busy", "four"):
        # A busy Linux whose clock jumps by an hour says itself that it was stuck so long; a frozen one may not.
        part = result.output.split(f"== {name} frozen\n", 1)[1].split(f"== {name} advanced\n", 1)[0]
        expect(not re.search("Call trace|BUG:|stall", part), f"{name}: its kernel complains: {part}")
    result.expect_status(0)


HELD = {"name": "held", "memoryMib": 64, "control": "held.sock"}


@lab.check("interrupts that were pending are still to come: a timer's level and an SGI", SCRIPT + """
    start held held.json
    await held.log HELD
    witness-vm save --stay-paused held.sock /tmp/held
    stop held
    start held held-restored.json
    echo "== restored"
    echo >&3
    await held.log ALL
    cat held.log
    stop held
""", files={"held.json": spec(kernel="/guest/bare", initrd="", commandLine="held", **HELD),
            "held-restored.json": restored(HELD)})
def _(result):
    """What is lost here hangs a guest: nobody sends a second interrupt for a call that has not been taken."""
    result.expect_line("^TAKEN 3$")
    result.expect_line("^TAKEN 27$")
    expect(result.count("^TAKEN ") == 2, f"two interrupts: {result.output}")
    result.expect_status(0)


@lab.check("saved, restored, and saved again it is the same but for its clock and names", SCRIPT + """
    for name in one four; do
        have $name
        start $name $name-restored.json restore.paused=true
        until witness-vm status $name.sock | grep paused; do usleep 20000; done 2>/dev/null
        rm -rf /tmp/again
        witness-vm save $name.sock /tmp/again
        stop $name
        witness-vm inspect --all /tmp/$name/state >first
        witness-vm inspect --all /tmp/again/state >second
        wc -l first
        diff first second
        /usr/bin/cmp -n $((96 << 20)) /tmp/$name/memory /tmp/again/memory && echo "$name: the same memory"
    done
    start one one-restored.json restore.paused=true
    until witness-vm status one.sock | grep paused; do usleep 20000; done 2>/dev/null
    witness-vm resume one.sock
    await one.log TICK
    witness-vm status one.sock -o json | grep -o '"runningMs":"[0-9]*"'
    stop one
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
    expect(0 < int(result.expect_line('^"runningMs":"([0-9]+)"')[1]) < 60000, "it runs since it was resumed")
    result.expect_status(0)


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
    refused one-restored.json generationId=$(witness-vm inspect --all /tmp/one/state | sed -n "s/^generation //p")
    refused one-restored.json restore.memory=cut
    refused one-restored.json restore.memory=/tmp/four/memory
    refused four-restored.json nics[0].mac=52:54:00:00:00:05
    truncate -s 2M large
    refused four-restored.json disks[0].path=large
""", limit=200, files=FILES)
def _(result):
    said = re.split("^== ", result.output, flags=re.MULTILINE)[-len(SHAPES) - 5:]
    words = [word for _, word in SHAPES] + ["generationId: is the one of the snapshot", "cut off",
                                            "belongs to another state file", "MAC address 52:54:00:00:00:04",
                                            "blk0 is of another size"]
    expect(len(said) == len(words), f"{len(said)} refusals")
    for text, word in zip(said, words):
        expect(word in text and "STATUS 1" in text, f"not refused by {word!r}: {text}")


@lab.check("a disk that was written since is refused, unless the spec says otherwise; its copy is taken", SCRIPT + """
    have four
    start four four-restored.json
    echo blk.write=/dev/vda,4 >&3; await four.log "RESULT blk.write"
    stop four
    echo "== written"
    witness-vm run four-restored.json leaseMs=1000 </dev/null 2>&1
    echo "STATUS $?"
    echo "== all the same"
    witness-vm run four-restored.json 'disks[0].asSaved=true' leaseMs=1000 </dev/null 2>&1 | grep -m 1 TICK
    echo "== copy"
    fresh
    witness-vm run four.json --restore /tmp/four leaseMs=1000 </dev/null 2>&1 | grep -m 1 TICK
""", files=FILES)
def _(result):
    result.expect_order("^== written", r"disks\[0\]: .*disk was written after the snapshot was saved", "^STATUS 1",
                        "^== all the same", "^TICK", "^== copy", "^TICK")
    result.expect_status(0)


@lab.check("a state file with one word altered is refused or harmless", SCRIPT + """
    have four
    alter /tmp/four/state /tmp/altered 30 1 damaged witness-vm run four-restored.json restore.state=/tmp/altered \
        backing=shared leaseMs=100
    alter /tmp/four/state /tmp/altered 150 2 forged witness-vm run four-restored.json restore.state=/tmp/altered \
        backing=shared leaseMs=100
    witness-vm run four-restored.json leaseMs=1000 | grep -m 1 TICK
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
    for n in $(seq {CLONES}); do until [ $(grep -c TICK clone-$n) -ge 2 ]; do usleep 20000; done; done
    for n in $(seq {CLONES}); do witness-vm status clone-$n.sock | grep state; done | sort | uniq -c
    for n in $(seq {CLONES}); do witness-vm stop clone-$n.sock; done
    wait
    grep -L TICK clone-*
""", limit=300, files=FILES)
def _(result):
    result.expect_line(f" {CLONES} state +running")
    kib = int(result.expect_line(r"^KIB (\d+)")[1]) / CLONES
    print(f"        snapshot: {kib / 1024:.2f} MiB a clone at its first tick")


@lab.check("after a restore the network hears where the guest is, and connections of before have ended", SCRIPT + """
    have four
    brctl addbr br0
    ifconfig br0 10.1.0.1 netmask 255.255.255.0 up
    brctl addif br0 tap0
    # Whoever says unasked where he is, is believed.
    echo 1 >/proc/sys/net/ipv4/conf/br0/arp_accept
    grep 10.1.0.2 /proc/net/arp && echo KNOWN
    echo "== restored"
    start four four-restored.json
    await four.log "RESULT vsock.hold"
    await /proc/net/arp "^10.1.0.2 .* 52:54:00:00:00:04 "
    cat /proc/net/arp
    guest vsock.echo=7005 >echo &
    await echo "STREAM awaited"
    echo vsock.exercise=2,7005,64 >&3; await four.log "RESULT vsock.exercise"
    cat four.log
    stop four
    brctl delif br0 tap0
    ifconfig br0 down
    brctl delbr br0
""", files=FILES)
def _(result):
    result.expect_no_line("KNOWN")
    result.expect_order("^== restored", "^10.1.0.2 .* br0")
    expect(result.word("vsock.hold")["ended"] == "ECONNRESET", "the connection of before")
    expect(result.word("vsock.exercise")["kib"] == "64", "a new one")
    result.expect_status(0)


@lab.check("from exec to a running guest", SCRIPT + """
    have one >/dev/null
    trace=/sys/kernel/debug/tracing
    echo mono >$trace/trace_clock
    echo 1 >$trace/events/sched/sched_process_exec/enable
    echo 1 >$trace/events/kvm/kvm_entry/enable
    for run in 1 2 3 4 5; do
        echo >$trace/trace
        witness-vm run one-restored.json backing=shared leaseMs=100 </dev/null >/dev/null 2>&1
        grep -m 1 -o '[0-9.]*: sched_process_exec: filename=.*witness-vm' $trace/trace
        grep -m 1 -o '[0-9.]*: kvm_entry' $trace/trace
    done
    echo 0 >$trace/events/enable
""", files=FILES)
def _(result):
    """By the kernel's own trace: the exec, and the first entry into the guest."""
    began = [float(t) for t in re.findall(r"([0-9.]+): sched_process_exec", result.output)]
    entered = [float(t) for t in re.findall(r"([0-9.]+): kvm_entry", result.output)]
    expect(len(began) == len(entered) == 5, "five runs")
    figures = sorted(1000 * (entry - begin) for begin, entry in zip(began, entered))
    print("        snapshot: Mi from exec to a running guest:", *(f"{figure:.2f}" for figure in figures))


@lab.here("a snapshot of one kind of processor is refused on another, by the register")
def _():
    expect(STATES, "the check of the ticks makes the snapshot for this one")
    part, state = sorted(STATES.items())[0]
    midr = {A72: "0x410fd083", A76: "0x414fd0b1"}
    other = A76 if part == A72 else A72
    with tempfile.TemporaryDirectory() as folder:
        restored_here = FILES["one-restored.json"].replace("/tmp/one/", "/lab/").encode()
        files = {"state": state, "memory": b"", "one.json": restored_here}
        for name, content in files.items():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        kind = ("--cpu", "cortex-a76") if part == A72 else ("--cpu", "cortex-a72", "--gic", "3")
        process = board(*kind, "--file", f"{lab.bin}/witness-vm:/bin/", "--dir", f"{folder}:/lab",
                        command=["sh", "-c", "cd /lab; witness-vm run one.json"])
        said = process.communicate()[0].decode(errors="replace")
    expect(process.returncode == 1, said)
    expect("another compatibility class than this host: "
           f"MIDR_EL1 is {midr[part]} in the snapshot and {midr[other]} here" in said, said)


if __name__ == "__main__":
    lab.main()
