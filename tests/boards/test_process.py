"""The life of a VM's process: what it refuses and says, its lease, its sandbox, its words, and that it leaves
nothing behind. On a board whose clock counts instructions, so that times are what they are on an idle one."""

from lab import ICOUNT, Lab, command_line, expect, spec

lab = Lab("process", guests=("kernel", "tiny", "bare", "talk"), modules=("tun", "loop", "vhost_vsock", "dm_delay"),
          packages=("dmsetup",), options=(*ICOUNT, "--cores", "1"), programs=("witness-vm", "escape", "parent"))

GONE_MS = 100  # after its deadline a VM is gone within

BARE = spec(name="bare", kernel="/guest/bare", initrd="", commandLine="off", memoryMib=64)
SPIN = spec(name="spin", kernel="/guest/bare", initrd="", commandLine="spin", memoryMib=64, control="/tmp/bare.sock")
LINUX = spec(name="linux", memoryMib=128, control="/tmp/linux.sock")

# Each: the overrides or the whole command, the status, the sentence.
REFUSED = [
    ("kernel=none", 1, "bare: kernel: cannot open none: No such file or directory"),
    ("kernel=x86", 1, "bare: the kernel is a kernel for another architecture; an arm64 Linux Image (plain or gzip) is "
     "needed"),
    ("kernel=cut", 1, "bare: the kernel is cut off: it has 1000000 bytes, its header says 27302400"),
    ("initrd=big", 1, "bare: the initrd does not fit into the guest's memory: give the VM more than 104 MiB"),
    ("vcpus=9", 2, "spec.json: vcpus: 9 is not between 1 and 8"),
    ("memoryMib=1", 2, "spec.json: memoryMib: 1 is not between 16 and 65536 MiB"),
    ("memoryMib=1048576", 2, "spec.json: memoryMib: 1048576 is not between 16 and 65536 MiB"),
    ("disks[0].path=none", 1, "bare: disks[0]: cannot open none: No such file or directory"),
    ("disks[0].path=odd", 1, "bare: blk0: the disk has 1000 bytes, no multiple of 512: enlarge it, e.g. by truncate -s "
     "%512 FILE"),
    ("disks[0].path=disk disks[1].path=disk", 2, "spec.json: disks[1].path: is disks[0] again"),
    ("nics[0].tap=tap9", 1, 'bare: nics[0]: there is no tap "tap9"; make it: `ip tuntap add tap9 mode tap`'),
    ("nics[0].tap=tap0 nics[1].tap=tap1 nics[0].mac=52:54:00:00:00:01 nics[1].mac=52:54:00:00:00:01", 2,
     "spec.json: nics[1].mac: 52:54:00:00:00:01 is the address of nics[0] too"),
    ("memroyMib=3", 2, 'spec.json: memroyMib: unknown field "memroyMib"; did you mean "memoryMib"?'),
    ("gic=v3", 1, 'bare: this host has no virtual GICv3, only GICv2: leave "gic" out of the spec'),
    ("sandbox.uid=0 sandbox.gid=0", 1, "bare: sandbox: a VM does not run as root; give it a user of its own with "
     "sandbox.uid and sandbox.gid"),
    ("control=odd", 1, "bare: control: odd is there already, and a VM answers it or it is no socket"),
]

PREPARE = """
    truncate -s 1000 odd
    truncate -s 1M disk
    truncate -s 100M big
    head -c 1000000 /guest/kernel >cut
    dd if=/dev/zero of=x86 bs=1k count=64 2>/dev/null
    printf MZ | dd of=x86 conv=notrunc 2>/dev/null
    printf HdrS | dd of=x86 bs=1 seek=514 conv=notrunc 2>/dev/null
    echo 'p:x:1001:1001::/:/bin/sh' >>/etc/passwd
    chmod 777 .
    refused() { "$@" </dev/null; echo "STATUS $?"; }
"""


@lab.check("one clear sentence for each bad input", PREPARE + "\n".join(
    f"refused witness-vm run spec.json {overrides}" for overrides, _, _ in REFUSED) + """
    echo 'not a spec' >none.json
    refused witness-vm run none.json
    mv /dev/kvm /dev/kvm.away
    refused witness-vm run spec.json
    mv /dev/kvm.away /dev/kvm
    chmod 600 /dev/kvm
    refused su p -s /bin/sh -c "witness-vm run spec.json sandbox.uid=0 sandbox.gid=0"
    chmod 666 /dev/kvm
    refused witness-vm run
    refused witness-vm run spec.json --chekc
    refused witness-vm sttus
    refused witness-vm status /tmp/nobody.sock
""", files={"spec.json": BARE})
def _(result):
    expected = [(status, sentence) for _, status, sentence in REFUSED] + [
        (2, "none.json: line 1: not valid JSON: '[' or '{' expected near 'not'; a spec is one JSON object such as "
         '{"name":"vm-1","kernel":"Image"}'),
        (1, "bare: cannot open /dev/kvm: No such file or directory; this kernel has no KVM, or the processor did not "
         "start in EL2: see `witness-vm probe`"),
        (1, "bare: cannot open /dev/kvm: Permission denied; add the user to the group kvm"),
        (2, "usage: witness-vm run SPEC [FIELD=VALUE]...; see `witness-vm run --help`"),
        (2, "unknown option --chekc; did you mean --check?"),
        (2, 'there is no command "sttus"; did you mean "status"?'),
        (3, "/tmp/nobody.sock: No such file or directory"),
    ]
    wanted = [line for status, sentence in expected for line in (f"witness-vm: {sentence}", f"STATUS {status}")]
    for line, want in zip(result.lines, wanted):
        expect(line == want, f"{line!r} instead of {want!r}")
    expect(len(result.lines) == len(wanted), f"{len(result.lines)} lines, not {len(wanted)}")


@lab.check("a disk in use is refused, with who has it; a mounted device too", """
    truncate -s 1M disk
    witness-vm run spec.json disks[0].path=disk commandLine=spin </dev/null >said &
    until grep -q BARE said; do usleep 20000; done
    witness-vm run spec.json disks[0].path=disk </dev/null
    witness-vm run spec.json disks[0].path=disk disks[0].readOnly=true </dev/null
    kill -9 $!
    wait
    witness-vm run spec.json disks[0].path=disk </dev/null || echo NOT FREE
    loop=$(losetup -f)
    losetup $loop $PWD/disk
    mke2fs $loop >/dev/null
    mkdir at
    mount $loop at
    witness-vm run spec.json disks[0].path=$loop </dev/null
    umount at
    witness-vm run spec.json disks[0].path=$loop </dev/null || echo NOT FREE
    losetup -d $loop
""", files={"spec.json": BARE})
def _(result):
    expect(result.count(r"^witness-vm: bare: disks\[0\]: disk is in use by process \d+ \(witness-vm\)$") == 2,
           "in use twice")
    result.expect_line(r"disks\[0\]: cannot open /dev/loop\d: Device or resource busy; it is mounted, or another program "
                       "has it for itself")
    expect(result.count("^BARE off") == 2, "free again after")
    result.expect_no_line("NOT FREE")


LEASED = "parent spec.json lease=60000"


@lab.check("past its deadline the process is gone, whatever it does", f"""
    echo CASE idle
    {LEASED} await=BARE renew=3,100,400 gone
    sed -i 's/"commandLine": "idle"/"commandLine": "spin"/' spec.json
    echo CASE spin
    {LEASED} await=BARE renew=3,100,400 gone
    echo CASE stopped
    {LEASED} await=BARE renew=1,0,400 freeze gone
    echo CASE frozen
    mkdir /sys/fs/cgroup/frozen
    echo 0 >/sys/fs/cgroup/frozen/cgroup.procs
    {LEASED} await=BARE renew=1,0,600 wait=100 gone &
    echo 0 >/sys/fs/cgroup/cgroup.procs
    usleep 400000
    pgrep() {{ for d in /proc/[0-9]*; do [ "$(cat $d/comm 2>/dev/null)" = "$1" ] && echo ${{d#/proc/}}; done; }}
    vm=$(pgrep witness-vm)
    mkdir /sys/fs/cgroup/ice
    echo $vm >/sys/fs/cgroup/ice/cgroup.procs
    echo 1 >/sys/fs/cgroup/ice/cgroup.freeze
    wait
    echo CASE no renewal at all
    parent spec.json lease=500 await=BARE gone
    echo CASE earlier
    {LEASED} await=BARE renew=1,0,30000 renew=1,0,300 gone
    rmdir /sys/fs/cgroup/ice /sys/fs/cgroup/frozen
""", files={"spec.json": BARE.replace('"off"', '"idle"')})
def _(result):
    result.expect_status(0)
    cases = [line for line in result.lines if line.startswith("CASE")]
    gone = [line.split() for line in result.lines if line.startswith("GONE")]
    expect(len(gone) == len(cases) == 6, f"{len(gone)} of {len(cases)} gone")
    for case, words in zip(cases, gone):
        expect(words[2] == "0x9", f"{case}: status {words[2]}")
        expect(0 <= int(words[4]) <= GONE_MS, f"{case}: gone {words[4]} ms after the deadline")


@lab.check("a disk that hangs does not hold a VM past its deadline", """
    modprobe dm-mod
    truncate -s 16M disk
    loop=$(losetup -f)
    losetup $loop $PWD/disk
    echo "0 32768 linear $loop 0" | dmsetup create slow
    dmsetup mknodes
    parent spec.json lease=60000 await=GUEST-READY "say=blk.info=/dev/vda" "await=RESULT blk.info ok" wait=100 \\
        renew=1,0,3000 "say=blk.write=/dev/vda,8" wait=300 "say=echo=asked" gone >out &
    until grep -q "RESULT blk.info" out; do usleep 20000; done
    dmsetup suspend --noflush slow
    wait
    cat out
    dmsetup resume slow
    dmsetup remove slow
    losetup -d $loop
""", files={"spec.json": spec(name="hang", memoryMib=128, disks=[{"path": "/dev/mapper/slow", "direct": True}])})
def _(result):
    result.expect_status(0)
    words = result.expect_line("^GONE").string.split()
    expect(words[2] == "0x9" and 0 <= int(words[4]) <= GONE_MS, " ".join(words))


@lab.check("while a snapshot is written to a card that does not answer, the lease is renewed, and SIGTERM waits", f"""
    truncate -s 200M card
    loop=$(losetup -f)
    losetup $loop $PWD/card
    mke2fs $loop >/dev/null
    mkdir at
    mount $loop at
    {LEASED} "await=BUTTON awaited" files=at wait=500 save wait=200 renew=10,200,1000 status pause term answered status \
        "await=RESULT button ok" renew=1,0,400 gone >out 2>&1 &
    until grep -q "BUTTON awaited" out 2>/dev/null; do usleep 10000; done
    fsfreeze --freeze at
    until [ $(grep -c renew out) -ge 10 ]; do usleep 50000; done
    usleep 300000
    fsfreeze --unfreeze at
    wait
    cat out
    ls -s at
    umount at
    losetup -d $loop
""", files={"spec.json": spec("&button=600000", name="busy", memoryMib=128)})
def _(result):
    result.expect_status(0)
    expect(result.count("^renew {.id.:.[0-9]+.}$") == 11, "each renewal is answered")
    result.expect_order("^renew", '^status .*"state":"paused"', "^pause .*a snapshot is being written; try again",
                        "a snapshot is being written, then the guest is asked to shut down",
                        "^LATER {.id.:.1.}$", '^status .*"state":"running"', "^HEARD RESULT button ok", "^GONE status 0x9")
    words = result.expect_line("^GONE").string.split()
    expect(0 <= int(words[4]) <= GONE_MS, " ".join(words))


@lab.check("a disk that hangs holds up a pause, a reset and a reboot, and neither the lease nor who asks", f"""
    modprobe dm-mod
    truncate -s 16M disk
    loop=$(losetup -f)
    losetup $loop $PWD/disk
    echo "0 32768 linear $loop 0" | dmsetup create slow
    touch out
    dmsetup mknodes
    writing="say=&blk.write=/dev/vda,1000 await=SYNCED"
    ( {LEASED} await=GUEST-READY $writing exists=hung1 wait=200 ask=pause wait=100 status renew=3,50,60000 resume stats \
        exists=goes1 answered status resume status $writing \
        exists=hung2 wait=200 ask=reset wait=100 status renew=3,50,60000 pause \
        exists=goes2 answered await=GUEST-READY status $writing \
        exists=hung3 wait=200 say=panic wait=500 status renew=3,50,60000 pause \
        exists=goes3 await=GUEST-READY status \
        $writing exists=hung4 wait=200 ask=pause wait=100 stop gone; echo "PARENT $?" ) 2>&1 | tee out &
    for n in 1 2 3; do
        until [ $(grep -c "SYNCED" out) -ge $n ]; do usleep 20000; done
        dmsetup suspend --noflush slow
        touch hung$n
        until [ $(grep -c "^renew" out) -ge $((3 * n)) ] && grep -c "try again" out | grep -q $n; do usleep 20000; done
        dmsetup resume slow
        touch goes$n
    done
    until [ $(grep -c "SYNCED" out) -ge 4 ]; do usleep 20000; done
    dmsetup suspend --noflush slow
    touch hung4
    until grep -q "^PARENT" out; do usleep 20000; done
    dmsetup resume slow
    until dmsetup remove slow; do usleep 50000; done
    losetup -d $loop
""", limit=400, files={"spec.json": spec(name="hang", memoryMib=128, disks=[{"path": "/dev/mapper/slow", "direct": True}],
                                         commandLine=command_line(more="panic=-1"))})
def _(result):
    result.expect_line("^PARENT 0$")
    pausing, running = '^status .*"state":"pausing"', '^status .*"state":"running"'
    busy = "the VM waits for its disk to end what was begun; try again"
    result.expect_order(pausing, "^renew", f"^resume .*{busy}", "^stats .*blk0", "^LATER", '^status .*"state":"paused"',
                        "^resume {.id.:.[0-9]+.}$", running,
                        pausing, "^renew", f"^pause .*{busy}", "^LATER", "^HEARD GUEST-READY", running,
                        pausing, "^renew", f"^pause .*{busy}", "^HEARD GUEST-READY", running, "^stop", "^GONE status 0x0")
    expect(result.count("^renew {.id.:.[0-9]+.}$") == 9, "each renewal is answered")
    expect(result.count("^LATER {.id.:.[0-9]+.}$") == 2, "the pause and the reset are")


@lab.check("a reset that meets the guest's own reboot", f"""
    {LEASED} await=BARE hold ask=reset wait=1000 let answered wait=2000 status renew=1,0,60000 stop gone
""", files={"spec.json": BARE.replace('"off"', '"later"')})
def _(result):
    result.expect_status(0)
    # One life less than a second each: it runs, and does not only say so.
    expect(int(result.expect_line(r'^status .*"state":"running".*"resets":"?(\d+)').group(1)) >= 3, "it boots on")


@lab.check("how long a vCPU was kept from running is the host's word", f"""
    {LEASED} await=LIED wait=100 stats stop gone
""", files={"spec.json": BARE.replace('"off"', '"lie"')})
def _(result):
    result.expect_status(0)
    said = result.expect_line(r'"name":"vcpu0.steal-ns"(?:,"value":"(\d+)")?').group(1) or "0"
    expect(int(said) < 10**12, f"it was kept for {said} ns")


@lab.check("a kernel that is read slowly: the lease is renewed, at the start and at a reset, and stop is heard", f"""
    truncate -s 40M disk
    loop=$(losetup -f)
    losetup $loop $PWD/disk
    mke2fs $loop >/dev/null
    mkdir at
    mount $loop at
    cp /guest/kernel at/kernel
    umount at
    # Each read of the read-ahead, 128 KiB: seconds for the kernel.
    echo "0 81920 delay $loop 0 20" | dmsetup create card
    dmsetup mknodes
    mount -o ro /dev/mapper/card at
    parent spec.json lease=1000 starting=100,1000 answered status stop gone
    cold() {{ sync; echo 3 >/proc/sys/vm/drop_caches; }}
    ( {LEASED} await=GUEST-INIT exists=cold ask=reset renew=30,100,1000 answered status stop gone; echo "PARENT $?" ) &
    sleep 5
    cold; touch cold
    wait $!
    rm cold
    ( {LEASED} await=GUEST-INIT exists=cold ask=reset wait=200 stop gone; echo "PARENT $?" ) &
    sleep 5
    cold; touch cold
    wait $!
    umount at
    dmsetup remove card
    losetup -d $loop
""", limit=400, files={"spec.json": spec(name="slow", kernel="at/kernel", initrd="/guest/tiny", memoryMib=128,
                                         commandLine=command_line())})
def _(result):
    result.expect_status(0)
    started = result.expect_line(r"^STARTED after-ms (\d+) renewed (\d+)$")
    expect(int(started.group(1)) >= 1500 and int(started.group(2)) >= 10, started.string)
    result.expect_order("^GONE status 0x0", "^HEARD GUEST-INIT", "^renew", "^LATER {.id.:.1.}$", '^status .*"state":"running"',
                        "^PARENT 0", "^HEARD GUEST-INIT", "^stop", '^LAST {.id.:.1.,.error.:.stopped by request.}$',
                        "^PARENT 0")


@lab.check("killed in the middle of a flush: the next VM waits for the disk, renewed, or is ended meanwhile", f"""
    truncate -s 40M card
    loop=$(losetup -f)
    losetup $loop $PWD/card
    mke2fs $loop >/dev/null
    echo "0 81920 linear $loop 0" | dmsetup create flush
    dmsetup mknodes
    mkdir at
    mount /dev/mapper/flush at
    # Whole: who writes where blocks are missing waits for the disk in the kernel, and its process with it.
    dd if=/dev/zero of=at/disk bs=1M count=16 2>/dev/null
    sync
    ( {LEASED} await=GUEST-READY "say=&blk.write=/dev/vda,1000" await=SYNCED exists=hung wait=300 renew=1,0,100 gone ) 2>&1 | tee out &
    touch out
    until grep -q SYNCED out; do usleep 20000; done
    dmsetup suspend --noflush --nolockfs flush
    touch hung
    until grep -q ^GONE out; do usleep 20000; done
    ( sleep 1; kill -TERM $(pidof witness-vm) ) &
    witness-vm run spec.json 2>&1
    echo "ENDED $?"
    ( sleep 3; dmsetup resume flush ) &
    parent spec.json lease=600 starting=100,600 answered renew=1,0,60000 await=GUEST-READY status stop gone
    # What a killed process had under way lets go of its disk a moment later.
    until umount at; do usleep 50000; done
    until dmsetup remove flush; do usleep 50000; done
    losetup -d $loop
""", limit=400, files={"spec.json": spec(name="linux", memoryMib=128, disks=[{"path": "at/disk"}])})
def _(result):
    result.expect_status(0)
    result.expect_order("^GONE status 0x9", "disk: linux: disks.0.: at/disk is waited for: process .*vm-disk-sync",
                        "^witness-vm: linux: ended by a signal$", "^ENDED 1$", "^STARTED", "^HEARD GUEST-READY",
                        '^status .*"state":"running"', "^GONE status 0x0")
    started = [line for line in result.lines if line.startswith("STARTED")][-1]
    _, _, after_ms, _, renewed = started.split()
    expect(int(after_ms) >= 2500 and int(renewed) >= 20, started)


@lab.check("nobody waits for who does not read the log", """
    mkfifo log
    sleep 1000 <log &
    dd if=/dev/zero of=log bs=65536 count=1 2>/dev/null
    witness-vm run spec.json </dev/null >said 2>log &
    until grep -q "BUTTON awaited" said; do usleep 50000; done
    kill -TERM $!
    until grep -q "RESULT button ok" said; do usleep 20000; done
    witness-vm status /tmp/linux.sock | grep ^state
    kill -TERM $!
    wait $!
    echo ENDED $?
""", files={"spec.json": spec("&button=600000", name="linux", memoryMib=128, control="/tmp/linux.sock")})
def _(result):
    result.expect_order("^state     running", "^ENDED 0")


@lab.check("nothing gets out of the sandbox, neither root's nor a person's", """
    escape && escape person
""")
def _(result):
    result.expect_status(0)
    expect(result.count("^ESCAPES tried 1[0-9][0-9] not refused 0$") == 2, "both ways")


@lab.check("the layers that status tells really hold", """
    mkdir /sys/fs/cgroup/vm
    witness-vm run spec.json sandbox.cgroup=/sys/fs/cgroup/vm </dev/null >said &
    until grep -q BARE said; do usleep 20000; done
    witness-vm status /tmp/bare.sock
    vm=$(cat /sys/fs/cgroup/vm/cgroup.procs)
    grep -E "^(Uid|Gid|CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/$vm/status
    for task in /proc/$vm/task/*; do grep Seccomp: $task/status | sed 's/^/THREAD /'; done
    echo ROOT $(ls /proc/$vm/root | wc -l)
    stat -c 'SOCKET %a' /tmp/bare.sock
    witness-vm stop /tmp/bare.sock
    wait
    rmdir /sys/fs/cgroup/vm
""", files={"spec.json": SPIN})
def _(result):
    result.expect_status(0)
    result.expect_line("^sandbox   cgroup, own user, empty root, no capabilities, no new privileges, limits, system calls$")
    result.expect_line(r"^Uid:\s+60001\s+60001\s+60001\s+60001$")
    result.expect_line(r"^Gid:\s+60001\s+60001\s+60001\s+60001$")
    result.expect_line(r"^CapEff:\s+0+$")
    result.expect_line(r"^CapBnd:\s+0+$")
    result.expect_line(r"^NoNewPrivs:\s+1$")
    expect(result.count(r"^THREAD Seccomp:\s+2$") == result.count("^THREAD") >= 2, "every thread has the list")
    result.expect_line("^ROOT 0$")
    result.expect_line("^SOCKET 600$")


@lab.check("an ordinary person's VM, with user namespaces and without", """
    echo 'p:x:1001:1001::/:/bin/sh' >>/etc/passwd
    chmod 777 .
    run() {
        su p -s /bin/sh -c "witness-vm run spec.json control=$1" </dev/null >said$1 2>&1 &
        until grep -q BARE said$1; do usleep 20000; done
        witness-vm status $1
        witness-vm stop $1
        wait
        cat said$1
    }
    run with
    old=$(cat /proc/sys/user/max_user_namespaces)
    echo 0 >/proc/sys/user/max_user_namespaces
    run without
    echo $old >/proc/sys/user/max_user_namespaces
""", files={"spec.json": spec(name="person", kernel="/guest/bare", initrd="", commandLine="spin", memoryMib=64, sandbox={})})
def _(result):
    result.expect_status(0)
    result.expect_line("^sandbox   user namespace, empty root, no capabilities, no new privileges, limits, system calls$")
    result.expect_line("^sandbox   no capabilities, no new privileges, limits, system calls$")
    expect(result.count("this host gives ordinary users no user namespaces") == 1, "said once, and only where it is so")


@lab.check("pause, resume, balloon, button, stop and their answers", """
    witness-vm run spec.json 'commandLine=console=hvc0 quiet cryptomgr.notests=1 -- &tick=0,100 button=600000 poweroff' \\
        </dev/null >said &
    until grep -q "BUTTON awaited" said; do usleep 50000; done
    witness-vm status /tmp/linux.sock | grep ^state
    witness-vm pause /tmp/linux.sock
    witness-vm status /tmp/linux.sock | grep ^state
    before=$(grep -c TICK said); usleep 500000; after=$(grep -c TICK said)
    echo PAUSED $((after - before))
    witness-vm pause /tmp/linux.sock && echo AGAIN
    witness-vm resume /tmp/linux.sock
    usleep 500000
    [ $(grep -c TICK said) -gt $after ] && echo GOES ON
    witness-vm balloon /tmp/linux.sock 16
    until witness-vm stats /tmp/linux.sock | grep -E "balloon.actual-pages +4096 "; do usleep 100000; done
    witness-vm balloon /tmp/linux.sock 128
    witness-vm stats /tmp/linux.sock -o json | grep -o '"name":"exits.mmio"'
    witness-vm button /tmp/linux.sock
    wait
    echo ENDED $?
    tail -n 1 said
    witness-vm status /tmp/linux.sock
""", files={"spec.json": LINUX})
def _(result):
    result.expect_order("^state     running", "^state     paused", "^PAUSED 0", "^AGAIN", "^GOES ON", "balloon.actual-pages",
                        "^witness-vm: the guest has 128 MiB in all and cannot give back 128$", "exits.mmio", "^ENDED 0")
    result.expect_line("^GUEST-poweroff$|^TICK")
    result.expect_line("^witness-vm: /tmp/linux.sock: no VM answers there any more$")


@lab.check("SIGTERM presses the button, a second one ends the VM; without a button the first does", f"""
    witness-vm run spec.json 'commandLine={command_line("button=600000", "echo=pressed", "wait=600000")}' </dev/null >said 2>&1 &
    until grep -q "BUTTON awaited" said; do usleep 50000; done
    kill -TERM $!
    until grep -q pressed said; do usleep 50000; done
    kill -TERM $!
    wait $!
    echo ENDED $?
    cat said
    witness-vm run bare.json commandLine=spin </dev/null >said &
    until grep -q BARE said; do usleep 50000; done
    kill -TERM $!
    wait $!
    echo ENDED $?
""", files={"spec.json": LINUX, "bare.json": BARE})
def _(result):
    expect(result.count("^ENDED 0$") == 2, "both ended")
    result.expect_line("linux: the guest was asked to shut down; once more ends it at once")
    result.expect_line("RESULT button ok")


@lab.check("a person's terminal: both ways, Ctrl-A, and given back whatever happens", f"""
    talk -l 120 sh -c 'stty -a 2>/dev/null | grep -o -E " -?(icanon|echo) "; witness-vm run spec.json; echo LEFT $?; stty -a 2>/dev/null | grep -o -E " -?(icanon|echo) "' <<END
< GUEST-READY
> echo=typed
< RESULT echo ok
> size
< RESULT size ok columns=90 rows=20
= 100 30
> wait=100
< RESULT wait
> size
< RESULT size ok columns=100 rows=30
^ a
. h
< Ctrl-A x
^ a
. x
< LEFT
END
    echo TALK $?
    talk -l 120 sh -c 'witness-vm run spec.json leaseMs=4000; echo LEFT $?; stty -a 2>/dev/null | grep -o -E " -?(icanon|echo) "' <<END
< GUEST-READY
< LEFT
END
    vms() {{ for d in /proc/[0-9]*; do [ "$(cat $d/comm 2>/dev/null)" = witness-vm ] && echo ${{d#/proc/}}; done; }}
    (until [ $(vms | wc -l) = 2 ]; do usleep 100000; done
        usleep 500000
        kill -9 $(vms | sort -n | head -n 1)
        until [ $(vms | wc -l) = 0 ]; do usleep 100000; done
        echo THE VM FOLLOWED) &
    talk -l 120 sh -c 'witness-vm run bare.json commandLine=spin; echo LEFT $?' <<END
< BARE
< LEFT
END
    wait
""", files={"spec.json": LINUX, "bare.json": BARE})
def _(result):
    result.expect_order("RESULT echo ok text=typed", "end the VM at once", "^LEFT 0", "^TALK 0", "its process was ended: Killed", "^LEFT 137", "^THE VM FOLLOWED")
    # talk's terminal has no echo.
    expect(result.count("^ icanon") == 3 and result.count("^ -echo") == 3, "the terminal is as it was")
    result.expect_no_line("^ -icanon")


@lab.check("two hundred VMs come and go and leave nothing", """
    truncate -s 1M disk
    tunctl -t tap0 >/dev/null
    cycle() {
        for i in $(seq $1); do
            witness-vm run spec.json disks[0].path=disk nics[0].tap=tap0 vsockCid=7 vcpus=2 </dev/null >said || echo FAILED $?
            grep -q "BARE off" said || echo SILENT
        done
    }
    # What each processor keeps at hand (count:) is free, too; MemFree leaves it out, and it may be tens of MiB.
    look() {
        sleep 1
        echo 3 >/proc/sys/vm/drop_caches
        echo $1 processes=$(ls /proc | grep -c '^[0-9]') files=$(cut -f1 /proc/sys/fs/file-nr) \\
            free=$(awk '$1 == "nr_free_pages" || $1 == "count:" {n += $2} END {print n * 4}' /proc/zoneinfo) \\
            mounts=$(wc -l </proc/mounts) taps=$(ls /sys/class/net | grep -c tap)
    }
    cycle 20
    look BEFORE
    cycle 200
    look AFTER
    tunctl -d tap0 >/dev/null
""", limit=240, files={"spec.json": BARE})
def _(result):
    result.expect_no_line("FAILED|SILENT")
    before, after = (dict(word.split("=") for word in result.expect_line(f"^{name} ").string.split()[1:])
                     for name in ("BEFORE", "AFTER"))
    for name in ("processes", "mounts", "taps"):
        expect(before[name] == after[name], f"{name}: {before[name]} before, {after[name]} after")
    # The kernel's own objects grow by about 200 KiB; one page of each VM would be 800.
    lost = int(before["free"]) - int(after["free"])
    expect(lost < 400, f"{lost} KiB lost")
    expect(int(after["files"]) - int(before["files"]) < 64, f"files: {before['files']} before, {after['files']} after")


if __name__ == "__main__":
    lab.main()
