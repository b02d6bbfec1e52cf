"""VMs of the cluster on a board with KVM: witnessd, witnessctl and witness-vm as they are installed. One board is
a cluster of its own; each check finds the daemon of the one before killed, and goes on with its card. The board's
clock counts instructions: a lease of three seconds means nothing on one that gets a tenth of a processor."""

import json

from lab import DAEMON_PACKAGES, ICOUNT, Lab, command_line, expect

lab = Lab("vms", guests=("kernel", "tiny", "bare"), modules=("tun", "bridge"),
          packages=DAEMON_PACKAGES,
          options=(*ICOUNT, "--cores", "1", "--memory", "1536"), programs=("witness-vm", "witnessd", "witnessctl"))

# $D: the daemon. `until_ SECONDS COMMAND`: until it succeeds, or says NOT and goes on.
BEGIN = """
    ctl() { witnessctl --socket /run/tb/witnessd.sock "$@"; }
    until_() { left=$1; shift; until "$@"; do sleep 1; left=$((left-1)); [ $left -gt 0 ] || { echo "NOT: $*"; return; }; done; }
    is() { ctl vm show $1 -o json | grep -q "\\"condition\\":\\"$2\\""; }
    pid_of() { for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" = witness-vm ] && echo ${p#/proc/}; done | head -n 1; }
    daemon() {
        ([ -z "$GROUP" ] || echo 0 >$GROUP/cgroup.procs; exec witnessd --data-dir /card --run-dir /run/tb --name b1 \
            --listen 127.0.0.1:7443 --sites-listen 127.0.0.1:5403 --set vms.program=/bin/witness-vm >>log 2>&1) &
        D=$!
        until_ 30 ctl status >/dev/null 2>&1
    }
    took() { echo "TOOK $1 $(($(cut -d. -f1 /proc/uptime) - began))"; }
    begin() { began=$(cut -d. -f1 /proc/uptime); }
    forget() { ctl vm stop --now $1; until_ 60 is $1 stopped; ctl vm delete --yes $1; }
    mkdir -p /card /run/tb
    [ -e /card/raft ] || mount -t tmpfs card /card
    ip link show br0 >/dev/null 2>&1 || { brctl addbr br0; ip link set br0 up; }
    ip link set lo up
    touch log; tail -f log &
    if [ ! -e /card/raft ]; then
        daemon
        ctl cluster init --name lab
        until_ 60 sh -c 'witnessctl --socket /run/tb/witnessd.sock node show b1 -o json | grep -q \\"hosts\\":true'
        ctl image push /guest/bare --name bare --kind kernel
        head -c 3000000 /dev/urandom >disk
        ctl image push disk --name disk --kind disk
    else
        daemon
    fi
"""


def status_of(result):
    """The `vm show -o json` of a line that begins with SHOW."""
    return [json.loads(line[5:]) for line in result.lines if line.startswith("SHOW ")]


@lab.check("from an image to a console that works both ways, and back to nothing", BEGIN + f"""
    ctl image push /guest/kernel --name linux --kind kernel
    ctl image push /guest/tiny --name tiny --kind initrd
    ctl vm create web --kernel linux --initrd tiny --memory 160M --nic br0 --disk overlay=disk --disk data=8M \
        --restart on-failure --command-line '{command_line("cpus")}' --start
    until_ 120 is web running
    echo "SHOW $(ctl vm show web -o json)"
    until_ 120 sh -c 'witnessctl --socket /run/tb/witnessd.sock vm logs web | grep -q GUEST-READY'
    ctl vm logs web | grep GUEST-
    (sleep 1; echo echo=hello; sleep 6) | timeout 15 witnessctl --socket /run/tb/witnessd.sock vm console web | grep RESULT
    echo "BRIDGE $(ls /sys/class/net/br0/brif)"
    echo "USER $(grep ^Uid /proc/$(pid_of)/status)"
    echo "FILES $(ls -R /card/vms | tr '\\n' ' ')"
    (sleep 1; echo blk.write=/dev/vdb,16,0,7; sleep 6) | timeout 15 witnessctl --socket /run/tb/witnessd.sock vm console web | grep RESULT
    (sleep 1; echo button=600000; echo poweroff; sleep 4) | timeout 15 witnessctl --socket /run/tb/witnessd.sock vm console web >/dev/null
    ctl vm stop web
    until_ 60 is web stopped
    ctl vm console web </dev/null; echo "STATUS $?"
    echo "LEFT $(ls -R /card/vms | tr '\\n' ' ') $(ls /sys/class/net/br0/brif)"
    ctl vm start web
    until_ 120 is web running
    until_ 120 sh -c 'witnessctl --socket /run/tb/witnessd.sock vm logs web | grep -q GUEST-READY'
    (sleep 1; echo blk.verify=/dev/vdb,16,0,7; sleep 6) | timeout 15 witnessctl --socket /run/tb/witnessd.sock vm console web | grep RESULT
    forget web
    until_ 30 test ! -e /card/vms/1
    echo "END $(ls /card/vms) $(ls /sys/class/net/br0/brif) $(pid_of)"
""", limit=900)
def _(result):
    result.expect_line("GUEST-READY")
    expect(result.words("echo")[-1]["text"] == "hello", "what was typed")  # a console begins with what was before
    result.expect_line("^BRIDGE vm1n0$")
    result.expect_line(r"^USER Uid:\s+90000\s+90000\s+90000\s+90000$")
    result.expect_line(r"^FILES .*data-disk1\.1 incarnation overlay0\.1")
    result.expect_line("vm-off: web is off: .*power")
    result.expect_line("VM \"web\" is stopped: it has no console")
    result.expect_line("^STATUS [1-5]$")
    result.expect_line(r"^LEFT .*data-disk1\.1 incarnation +$")
    result.words("blk.write")
    result.words("blk.verify")  # data stays over a stop
    result.expect_line("^END +$")
    result.expect_no_line("^NOT")


@lab.check("a data disk that is gone from the card is not made anew", BEGIN + """
    ctl vm create db --kernel bare --memory 32M --command-line idle --disk data=4M --start
    until_ 60 is db running
    ctl vm stop --now db
    until_ 60 is db stopped
    file=$(echo /card/vms/*/data-disk0.1)
    mv $file aside
    ctl vm start db
    until_ 60 sh -c 'witnessctl --socket /run/tb/witnessd.sock vm show db -o json | grep -q "data disk disk0 is missing on this board"'
    echo "NONE $(ls $file 2>&1)"
    mv aside $file
    ctl vm restart db
    until_ 60 is db running
    ctl event list | grep vm.data-made
    forget db
    until_ 30 sh -c '[ -z "$(ls /card/vms)" ]'
""", limit=400)
def _(result):
    result.expect_line("^NONE .*No such file")
    result.expect_line("VM db has its data disks on b1, empty: disk0")
    result.expect_no_line("^NOT")


@lab.check("a guest that ends by itself: always, on failure, never; a process that is killed comes back", BEGIN + """
    ctl vm create never --kernel bare --memory 32M --command-line off --restart never --start
    until_ 60 grep -q 'never is off' log
    sleep 10
    ctl vm create again --kernel bare --memory 32M --command-line off --restart always --restart-attempts 2 --start
    until_ 60 sh -c '[ $(grep -c "again runs" log) -ge 3 ]'
    forget again
    ctl vm create stays --kernel bare --memory 32M --command-line idle --start
    until_ 60 is stays running
    first=$(pid_of)
    begin
    kill -9 $first
    until_ 20 grep -q "stays has ended" log
    until_ 60 sh -c '[ $(grep -c "stays runs" log) -ge 2 ]'
    until_ 20 is stays running
    took restart
    echo "SHOW $(ctl vm show stays -o json)"
    [ "$first" != "$(pid_of)" ] && echo ANOTHER
    forget stays
""", limit=900)
def _(result):
    result.expect_line("never is off")
    expect(result.count("never runs") == 1, "never again")
    result.expect_line("stays has ended: it was killed")
    result.expect_line("^ANOTHER$")
    expect(status_of(result)[0]["status"]["restarts"] == 1, "one restart")
    result.expect_no_line("^NOT")


@lab.check("a daemon that is killed takes its VMs along at once, and the next one starts them after a whole lease",
           BEGIN + """
    ctl vm create web --kernel bare --memory 32M --command-line spin --start
    until_ 60 is web running
    vm=$(pid_of)
    kill -9 $D
    sleep 0.3
    kill -0 $vm 2>/dev/null && echo "STILL THERE"
    begin
    daemon
    until_ 60 is web running
    took start
    [ "$vm" != "$(pid_of)" ] && echo ANOTHER
    forget web
""", limit=900)
def _(result):
    result.expect_no_line("STILL THERE")
    result.expect_line("^ANOTHER$")
    expect(int(result.expect_line(r"TOOK start (\d+)").group(1)) >= 2, "not before a lease of before has ended")
    result.expect_no_line("^NOT")


@lab.check("a daemon that hangs loses its VMs at their deadline; lease lost and regained, they run again", BEGIN + """
    ctl vm create web --kernel bare --memory 32M --command-line spin --start
    until_ 60 is web running
    vm=$(pid_of)
    kill -STOP $D
    sleep 1
    kill -0 $vm && echo "STILL THERE"
    sleep 4
    grep -q '^State:.Z' /proc/$vm/status && echo DEAD
    kill -CONT $D
    until_ 20 grep -q "vm-lapsed: web has ended with its lease" log
    until_ 60 sh -c '[ $(grep -c "web runs" log) -ge 2 ]'
    until_ 20 is web running
    [ "$vm" != "$(pid_of)" ] && echo ANOTHER
    forget web
""", limit=900)
def _(result):
    result.expect_line("^STILL THERE$")  # a second is within the lease
    result.expect_line("^DEAD$")
    result.expect_line("^ANOTHER$")
    result.expect_no_line("^NOT")


@lab.check("a VM that is frozen and let go again is dead, not running; one that cannot start says why", BEGIN + """
    ctl vm create web --kernel bare --memory 32M --command-line spin --start
    until_ 60 is web running
    vm=$(pid_of)
    kill -STOP $vm
    until_ 30 grep -q "vm-failed: web has ended: its process did not answer" log
    kill -CONT $vm 2>/dev/null && echo "STILL THERE"
    until_ 60 sh -c '[ $(grep -c "web runs" log) -ge 2 ]'
    forget web
    ctl vm create odd --kernel disk --memory 32M --start; echo "STATUS $?"
    ctl vm create none --kernel bare --memory 32M --nic br7 --start; echo "STATUS $?"
    ctl vm create odd --kernel bare --memory 32M --disk data=4000M --start
    until_ 60 grep -q "odd: disk 0 needs 4000 MiB" log
    echo "SHOW $(ctl vm show odd -o json)"
    forget odd
""", limit=900)
def _(result):
    result.expect_no_line("STILL THERE")
    expect(result.count("^STATUS [1-5]$") == 2, "both refused at once")
    expect("disk 0 needs 4000 MiB" in status_of(result)[0]["status"]["reason"], "the reason")
    result.expect_no_line("^NOT")


@lab.check("the end of the daemon is the end of its VMs: by the button, else by force; nothing is left", BEGIN + """
    ctl vm create web --kernel bare --memory 32M --command-line spin --nic br0 --start
    until_ 60 is web running
    begin
    kill $D
    wait $D
    echo "STATUS $?"
    took stop
    echo "END $(pid_of) $(ls /sys/class/net/br0/brif)"
    daemon
    until_ 60 is web running
    forget web
""", limit=900)
def _(result):
    result.expect_line("^STATUS 0$")
    result.expect_line("^END +$")
    expect(int(result.expect_line(r"TOOK stop (\d+)").group(1)) < 60, "the guest has no button: no need to wait")
    result.expect_no_line("^NOT")


@lab.check("a cgroup for each VM, where the daemon has one of its own", """
    echo "+memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
    GROUP=/sys/fs/cgroup/tb
    mkdir $GROUP
""" + BEGIN + """
    ctl vm create web --kernel bare --memory 32M --command-line idle --start
    until_ 60 is web running
    echo "CGROUP $(cat /proc/$(pid_of)/cgroup) $(cat $GROUP/vms/web/memory.max)"
    forget web
    echo "LEFT $(ls -d $GROUP/vms/*/ 2>/dev/null)"
    kill $D
    wait $D
""", limit=900)
def _(result):
    result.expect_line(f"^CGROUP .*0::/tb/vms/web {(32 + 128) << 20}$")
    result.expect_line("^LEFT $")
    result.expect_no_line("^NOT")


# As on Raspberry Pi OS, whose firmware tells the kernel to do without the controller for memory.
@lab.check("a cgroup for each VM without control of memory", """
    rmdir /sys/fs/cgroup/tb/*/ /sys/fs/cgroup/tb 2>/dev/null # the check before needs it no more
    echo "-memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
    GROUP=/sys/fs/cgroup/small
    mkdir $GROUP
""" + BEGIN + """
    ctl vm create web --kernel bare --memory 32M --command-line idle --start
    until_ 60 is web running
    echo "CGROUP $(cat /proc/$(pid_of)/cgroup) $(cat $GROUP/vms/web/pids.max) $(ls $GROUP/vms/web | grep -c ^memory.max)"
    forget web
    kill $D
    wait $D
""", limit=900)
def _(result):
    result.expect_line("^CGROUP .*0::/small/vms/web 128 0$")
    result.expect_line("vm-limits: the memory of VMs' processes is not limited: its cgroup was not given")
    result.expect_no_line("^NOT")


if __name__ == "__main__":
    lab.main()
