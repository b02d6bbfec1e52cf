"""The guest program's words under a VM monitor that is known to work (QEMU): what they find wrong under
ours is then ours."""

from lab import Lab, command_line, expect

lab = Lab("guest", guests=("kernel", "tiny", "program", "talk"), packages=("qemu-system-arm",), programs=())


def qemu(*words, more=""):
    return ("qemu-system-aarch64 -M virt,gic-version=host -accel kvm -cpu host -m 192 -smp 2 -nodefaults -display none "
            f"-serial stdio -no-reboot -global virtio-mmio.force-legacy=false {more} -kernel /guest/kernel "
            f"-initrd /guest/tiny -append '{command_line(*words, console='ttyAMA0')}'")


@lab.check("disks, memory, processors, clocks and random numbers", f"""
    truncate -s 16M disk
    {qemu("blk.info", "blk.write=/dev/vda,8", "blk.verify=/dev/vda,8", "blk.verify=/dev/vda,8,1",
          "blk.discard=/dev/vda,0,8", "blk.zeroes=/dev/vda,0,8", "blk.bench=/dev/vda,read,1,100",
          "blk.bench=/dev/vda,write,8,100", "blk.sequential=/dev/vda,write,4", "blk.flush=/dev/vda,10",
          "memory.touch=16", "memory.verify", "memory.free", "cpus", "vectors=3", "clock", "random", "hwrng=32", "tick=3",
          "nonsense", "poweroff", more="-device virtio-rng-device -drive if=none,id=d,format=raw,discard=unmap,file=disk "
          "-device virtio-blk-device,drive=d")}
""")
def _(result):
    result.expect_order("GUEST-INIT", "SYNCED 0", "SYNCED 7", "TICK 1 ", "TICK 3 ", "GUEST-poweroff")
    expect(result.word("blk.info")["blocks"] == "4096", "the disk's size")
    expect(result.count("RESULT blk.verify ok blocks=8") == 1, "a pattern that is there")
    result.expect_line("RESULT blk.verify failed: block 8, which says it is 0 of 0")
    expect(result.word("blk.zeroes")["other"] == "0", "discarded blocks read as zeroes")
    expect([said["ops"] for said in result.words("blk.bench")] == ["100", "100"], "the benches")
    expect(result.word("cpus")["online"] == "2", "two vCPUs")
    expect(result.word("memory.verify")["mib"] == "16", "memory")
    for name in ("vectors", "clock", "random", "hwrng", "blk.flush", "blk.sequential"):
        result.word(name)
    result.expect_line("RESULT nonsense failed: unknown word")


@lab.check("network with the board over a tap, and vsock both ways", f"""
    tunctl -t tap0
    ip address add 10.8.0.1/24 dev tap0
    ip link set tap0 up
    guest udp.echo=7000 &
    guest tcp.echo=7002 &
    guest vsock.echo=5000 &
    guest packets.receive=7001,3000 &
    (sleep 1; {qemu("net=eth0,10.8.0.2/24", "udp.ping=10.8.0.1,7000,100", "packets.send=10.8.0.1,7001,3000",
                    "tcp.exercise=10.8.0.1,7002,512", "&vsock.echo=5001", "vsock.exercise=2,5000,256", "echo=served",
                    more="-netdev tap,id=n,ifname=tap0,script=no,downscript=no -device virtio-net-device,netdev=n "
                    "-device vhost-vsock-device,guest-cid=3")} >said) &
    until grep -q "RESULT echo" said; do sleep 0.2; done
    guest vsock.exercise=3,5001,256
    status=$?
    cat said
    exit $status
""")
def _(result):
    result.expect_status(0)
    expect(result.word("udp.ping")["lost"] == "0", "round trips")
    expect(result.word("packets.receive")["received"] == "3000", "numbered packets")
    result.word("packets.send")
    result.word("tcp.exercise")
    expect(len(result.words("vsock.exercise")) == 2, "vsock from the guest and from the board")


@lab.check("the power button is virtio-input", f"""
    {qemu("button=20000", "poweroff", more="-device virtio-keyboard-device "
          "-monitor tcp:127.0.0.1:5555,server=on,wait=off")} >said &
    until grep -q "BUTTON awaited" said; do sleep 0.2; done
    (echo sendkey power; sleep 1) | nc 127.0.0.1 5555 >/dev/null
    wait
    cat said
""")
def _(result):
    result.expect_order("BUTTON awaited", "RESULT button ok", "GUEST-poweroff")


if __name__ == "__main__":
    lab.main()
