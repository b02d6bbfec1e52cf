"""The virtio disk in real guests: what was synced is there after a kill, what may not be written is not, a host
without space harms one disk only, and a disk that hangs holds nobody. The board's clock counts instructions."""

from lab import ICOUNT, Lab, command_line, expect, spec

lab = Lab("blk", guests=("kernel", "tiny", "busybox"), modules=("brd", "loop"), packages=("dmsetup", "e2fsprogs"),
          programs=("witness-vm", "without"), options=ICOUNT)

# A VM whose console is the file `out`, spoken to with say; the last one's process is $vm.
TALK = """
    vm() {
        rm -f in; mkfifo in
        witness-vm run "$@" <in >out 2>&1 &
        vm=$!
        exec 3>in
    }
    say() { echo "$1" >&3; }
    await() {
        for try in $(seq 600); do
            grep -q "$1" out && return
            usleep 50000
        done
        cat out; echo "never said: $1"; exit 1
    }
    done_with() { wait $vm; echo "STATUS $?"; cat out; exec 3>&-; }
    run() { witness-vm run "$@" </dev/null; }
"""


def words(*names):
    return {"commandLine": command_line(*names)}


def guest(*names, name="disk", disks, **more):
    return spec(name=name, memoryMib=128, disks=disks, **words(*names), **more)


@lab.check("what is written is read, by this VM and the next; what is discarded is given back", """
    mkdir disks; mount -t tmpfs none disks
    truncate -s 64M disks/a; chown 60001 disks/a
    witness-vm run first.json </dev/null
    du -k disks/a
    witness-vm run second.json </dev/null
    du -k disks/a
    umount disks
""", files={
    "first.json": guest("blk.info=/dev/vda", "blk.write=/dev/vda,256,100,7", "blk.verify=/dev/vda,256,100,7",
                        "poweroff", disks=[{"path": "disks/a", "id": "data-1"}]),
    "second.json": guest("blk.verify=/dev/vda,256,100,7", "blk.discard=/dev/vda,100,128", "blk.zeroes=/dev/vda,100,128",
                         "blk.verify=/dev/vda,128,228,7", "poweroff", disks=[{"path": "disks/a"}]),
})
def _(result):
    result.expect_status(0)
    info = result.word("blk.info")
    expect(info["blocks"] == "16384" and info["serial"] == "data-1" and info["cache"] == "write", str(info))
    expect([said["blocks"] for said in result.words("blk.verify")] == ["256", "256", "128"], "all blocks")
    expect(result.word("blk.zeroes")["blocks"] == "128", "discarded blocks read as zeros here")
    used = [int(line.split()[0]) for line in result.lines if line.endswith("disks/a")]
    expect(used == [1024, 512], f"KiB on the host: {used}")


@lab.check("the same on a host without io_uring, and zeros that are asked for", TALK + """
    mkdir disks; mount -t tmpfs none disks
    truncate -s 64M disks/a; chown 60001 disks/a
    mkfifo in
    without witness-vm run spec.json control=/tmp/disk.sock <in >out 2>&1 &
    vm=$!
    exec 3>in
    await "RESULT blk.verify"
    witness-vm status /tmp/disk.sock | grep ^disks
    say blk.clear=/dev/vda,100,64
    say blk.zeroes=/dev/vda,100,64
    say blk.discard=/dev/vda,164,64
    say blk.zeroes=/dev/vda,164,64
    await "RESULT blk.zeroes.*"
    say blk.bench=/dev/vda,read,8,200
    await "RESULT blk.bench"
    du -k disks/a
    witness-vm stats /tmp/disk.sock | grep blk0.discards
    say poweroff
    done_with
    # And with io_uring.
    run second.json
    du -k disks/a
    umount disks
""", files={
    "spec.json": guest("blk.info=/dev/vda", "blk.write=/dev/vda,256,100,7", "blk.verify=/dev/vda,256,100,7",
                       disks=[{"path": "disks/a", "id": "data-1"}]),
    "second.json": guest("blk.zeroes=/dev/vda,100,128", "blk.verify=/dev/vda,128,228,7", "blk.clear=/dev/vda,228,64",
                         "blk.zeroes=/dev/vda,228,64", "blk.verify=/dev/vda,64,292,7", "poweroff",
                         disks=[{"path": "disks/a"}]),
})
def _(result):
    result.expect_line("^disks +by threads$")
    expect(int(result.word("blk.info")["zeroes_max"]) > 0, "the guest knows that the disk makes zeros")
    expect(len(result.words("blk.clear")) == 2 and len(result.words("blk.discard")) == 1, "done")
    expect([said["other"] for said in result.words("blk.zeroes")] == ["0"] * 4, "all of them are zeros")
    expect([said["blocks"] for said in result.words("blk.verify")] == ["256", "128", "64"], "and nothing else")
    used = [int(line.split()[0]) for line in result.lines if line.endswith("disks/a")]
    # Linux asks for zeros in blocks that it keeps, and tmpfs has only written ones.
    expect(used == [768, 768], f"KiB on the host: {used}")
    result.expect_line("^blk0.discards +2$")
    result.expect_status(0)


@lab.check("what was synced is there after kill -9, block by block", TALK + """
    truncate -s 64M disk; chown 60001 disk
    vm write.json
    await "SYNCED 150"
    kill -9 $vm
    done_with
    last=$(grep SYNCED out | tail -1 | tr -dc 0-9)
    run write.json "commandLine=$(cat verify | sed s/COUNT/$((last + 1))/)"
    echo "LAST $last"
""", files={"write.json": guest("blk.write=/dev/vda,16000,0,7", disks=[{"path": "disk"}]),
            "verify": command_line("blk.verify=/dev/vda,COUNT,0,7", "poweroff")})
def _(result):
    result.expect_line("^STATUS 137$")
    last = int(result.expect_line(r"^LAST (\d+)$").group(1))
    expect(last >= 150 and result.word("blk.verify")["blocks"] == str(last + 1), f"{last} synced")


@lab.check("files of ext4 that were synced are there after kill -9, for a new VM", TALK + r"""
    truncate -s 64M ext4; mkfs.ext4 -q ext4; chown 60001 ext4
    vm ext4.json
    await GUEST
    say 'mkdir /m; mount -t ext4 /dev/vda /m && echo MOUNTED'
    await ^MOUNTED
    say 'n=0; while echo "content $n" | dd of=/m/f$n conv=fsync 2>/dev/null; do echo SYNCED $n; n=$((n+1)); done'
    await "SYNCED 60"
    kill -9 $vm
    wait $vm
    exec 3>&-
    last=$(grep ^SYNCED out | tail -1 | tr -dc 0-9)
    vm ext4.json
    await GUEST
    say 'mkdir /m; mount -t ext4 /dev/vda /m && echo MOUNTED'
    await ^MOUNTED
    say "n=0; while [ \$n -le $last ] && [ \"\$(cat /m/f\$n)\" = \"content \$n\" ]; do n=\$((n+1)); done"
    say "umount /m; echo WHOLE \$n"
    await ^WHOLE
    grep ^WHOLE out
    kill -9 $vm
    wait $vm
    echo LAST $last
    e2fsck -fn ext4
""", files={"ext4.json": spec(name="ext4", memoryMib=128, initrd="/guest/busybox", disks=[{"path": "ext4"}],
                              **words("shell"))})
def _(result):
    result.expect_status(0)
    last = int(result.expect_line(r"^LAST (\d+)$").group(1))
    whole = int(result.expect_line(r"^WHOLE (\d+)").group(1))
    expect(last >= 60 and whole == last + 1, f"synced up to {last}, whole are {whole}")


@lab.check("a read-only disk refuses writes and stays as it was", """
    dd if=/dev/urandom of=disk bs=1M count=4 2>/dev/null
    chmod 444 disk
    before=$(md5sum <disk)
    witness-vm run spec.json </dev/null
    [ "$before" = "$(md5sum <disk)" ] && echo UNCHANGED
""", files={"spec.json": guest("blk.info=/dev/vda", "blk.write=/dev/vda,4,0,7", "blk.sequential=/dev/vda,read,4",
                               "poweroff", disks=[{"path": "disk", "readOnly": True}])})
def _(result):
    result.expect_status(0)
    expect(result.word("blk.info")["ro"] == "1", "the guest knows")
    result.expect_line("^RESULT blk.write failed")
    result.word("blk.sequential")
    result.expect_line("^UNCHANGED$")


@lab.check("a full host is an I/O error of that disk and of no other, until there is space again", TALK + """
    mkdir small; mount -t tmpfs -o size=8m none small
    truncate -s 64M small/a other; chown 60001 small/a other
    dd if=/dev/zero of=small/ballast bs=1M count=4 2>/dev/null
    vm spec.json
    await GUEST-READY
    say "blk.sequential=/dev/vda,write,32"
    await "RESULT blk.sequential"
    say "blk.write=/dev/vdb,64,0,3"
    await "RESULT blk.write"
    rm small/ballast
    say "blk.write=/dev/vda,64,1200,5"
    say "blk.verify=/dev/vdb,64,0,3"
    await "RESULT blk.verify"
    say poweroff
    done_with
    umount small
""", files={"spec.json": guest(disks=[{"path": "small/a"}, {"path": "other"}])})
def _(result):
    result.expect_line("^STATUS 0$")
    result.expect_line("^RESULT blk.sequential failed")
    expect(len(result.words("blk.write")) == 2, "both writes")
    result.word("blk.verify")
    result.expect_status(0)


@lab.check("a block device past the page cache: hardly an exit for each request, and free at once", TALK + """
    chown 60001 /dev/ram0
    mount -t debugfs none /sys/kernel/debug 2>/dev/null
    exits() { echo EXITS $(cat /sys/kernel/debug/kvm/mmio_exit_user); }
    vm spec.json
    await GUEST-READY
    exits
    say "blk.bench=/dev/vda,read,1,2000"
    await "RESULT blk.bench.*way=read depth=1"
    exits
    say "blk.bench=/dev/vda,write,8,2000"
    await "RESULT blk.bench.*way=write depth=8"
    exits
    say "blk.write=/dev/vda,64,0,9"
    await "RESULT blk.write"
    kill -9 $vm
    run again.json
    echo "STATUS $?"
    cat out
""", files={"spec.json": guest("blk.info=/dev/vda", disks=[{"path": "/dev/ram0", "direct": True}]),
            "again.json": guest("blk.verify=/dev/vda,64,0,9", "poweroff", disks=[{"path": "/dev/ram0"}])})
def _(result):
    result.expect_line("^STATUS 0$")
    expect(len(result.words("blk.bench")) == 2 and result.word("blk.verify")["blocks"] == "64", "all done")
    exits = [int(line.split()[1]) for line in result.lines if line.startswith("EXITS")]
    each = [(after - before) / 2000 for before, after in zip(exits, exits[1:])]
    expect(max(each) <= 0.05, f"exits to user space for each request: {each}")


@lab.check("a disk that hangs under flushes does not hold the VM's process; the next VM waits for the disk", TALK + """
    dmsetup create slow --table "0 $(blockdev --getsz /dev/ram0) linear /dev/ram0 0"
    dmsetup mknodes
    chown 60001 /dev/mapper/slow
    vm spec.json
    await "SYNCED 20"
    dmsetup suspend --nolockfs --noflush slow
    usleep 500000
    kill -9 $vm
    for ms in $(seq 0 20 2000); do kill -0 $vm 2>/dev/null || break; usleep 20000; done
    wait $vm
    echo "GONE $? $ms"
    run spec.json
    echo "SECOND $?"
    dmsetup resume slow
    usleep 300000
    run spec.json "commandLine=$(cat verify)"
    dmsetup remove slow
""", files={"spec.json": guest("blk.write=/dev/vda,4000,0,7", disks=[{"path": "/dev/mapper/slow"}]),
            "verify": command_line("blk.verify=/dev/vda,21,0,7", "poweroff")})
def _(result):
    result.expect_status(0)
    gone = result.expect_line(r"^GONE 137 (\d+)$")
    expect(int(gone.group(1)) <= 100, gone.string)
    result.expect_line("^witness-vm: disk: disks.0.: cannot open /dev/mapper/slow: Device or resource busy")
    result.expect_line("^SECOND 1$")
    expect(result.word("blk.verify")["blocks"] == "21", "what was synced")


if __name__ == "__main__":
    lab.main()
