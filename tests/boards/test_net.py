"""The virtio network card and sockets in real guests: VMs on a bridge talk to each other and to the board, every
packet in order, large frames whole; links go and come; vsock both ways. The board's clock counts instructions.

TIEBREAK_PACKETS: how many small packets one VM sends the other (20000); a million costs eleven minutes of
processor time. TIEBREAK_BOARD_PACKETS: how many go between a VM and the board, half of them each way (2000); a
million costs five to six minutes."""

import os

from lab import ICOUNT, Lab, command_line, expect, spec

PACKETS = int(os.environ.get("TIEBREAK_PACKETS", "20000"))
BOARD_PACKETS = int(os.environ.get("TIEBREAK_BOARD_PACKETS", "2000")) // 2
PACKET_LIMIT = 120 + PACKETS // 250 + BOARD_PACKETS // 250

lab = Lab("net", guests=("kernel", "tiny", "program"), modules=("bridge", "tun", "vhost_vsock"), packages=("iproute2",),
          options=ICOUNT)

# A bridge with the board at 10.1.0.1 and the taps tap0 and tap1; VMs in the background, their consoles in NAME.out
# and spoken to with say NAME WORD.
NETWORK = """
    ip() { /usr/sbin/ip "$@"; }
    ip link add br0 type bridge
    ip addr add 10.1.0.1/24 dev br0
    ip link set br0 up
    ip link set lo up
    for n in 0 1; do
        ip tuntap add tap$n mode tap
        ip link set tap$n master br0 up
    done
    vm() {
        mkfifo $1.in
        witness-vm run $1.json <$1.in >$1.out 2>&1 &
        eval "$1=$!"
        eval "exec $2>$1.in"
        await $1 GUEST-READY
    }
    await() {
        for try in $(seq ${tries:-1200}); do
            grep -q "$2" $1.out && return
            usleep 50000
        done
        cat $1.out; echo "$1 never said: $2"; exit 1
    }
    ask() { echo "$3" >&$2; await $1 "RESULT ${3%%=*}"; }
    counter() { echo "COUNTER $(witness-vm stats $1 | grep "$2 " | tr -s ' ')"; }
    # What the VM's process has beside the guest's memory: files and kilobytes of heap.
    owned() {
        heap=$(awk '/\\[heap\\]/ {heap=1} heap && /^Rss/ {print $2; exit}' /proc/$1/smaps)
        echo "OWNED $(ls /proc/$1/fd | wc -l) $heap"
    }
    away() {
        for n in 0 1; do ip link del tap$n 2>/dev/null; done
        ip link del br0
    }
"""


def guest(name, *words, **more):
    return spec(name=name, memoryMib=128, control=f"/tmp/{name}.sock", commandLine=command_line(*words), **more)


def counters(result):
    return {line.split()[1]: int(line.split()[2]) for line in result.lines if line.startswith("COUNTER ")}


@lab.check("two VMs on a bridge and the board: packets in order, transfers both ways", NETWORK + f"""
    tries={1200 + PACKETS // 100}
    vm a 3
    vm b 4
    ping -c 3 -W 5 10.1.0.2
    ask b 4 udp.ping=10.1.0.2,7000,100,64
    ask b 4 udp.ping=10.1.0.2,7000,100,1472
    ask b 4 packets.send=10.1.0.2,7002,{PACKETS},64,64
    await a "RESULT packets.receive"
    owned $a
    guest packets.send=10.1.0.2,7004,{BOARD_PACKETS},64,192
    guest packets.receive=7004,{BOARD_PACKETS} >received &
    until grep -q awaited received; do usleep 20000; done
    ask a 3 packets.send=10.1.0.1,7004,{BOARD_PACKETS},64,192
    until grep RESULT received; do usleep 20000; done
    owned $a
    ask b 4 tcp.send=10.1.0.2,7003,16
    ask b 4 tcp.exercise=10.1.0.2,7001,2048
    ask a 3 tcp.exercise=10.1.0.3,7001,2048
    guest tcp.echo=7001 &
    guest tcp.exercise=10.1.0.2,7001,2048
    ask a 3 tcp.exercise=10.1.0.1,7001,2048
    counter /tmp/a.sock net0.rx-dropped
    counter /tmp/a.sock net0.tx-dropped
    counter /tmp/b.sock net0.tx-frames
    echo poweroff >&3; echo poweroff >&4
    wait $a; echo "STATUS a $?"
    wait $b; echo "STATUS b $?"
    cat a.out b.out
    away
""", limit=PACKET_LIMIT, files={
    "a.json": guest("a", "net=eth0,10.1.0.2/24", "&udp.echo=7000", "&tcp.echo=7001", f"&packets.receive=7002,{PACKETS}",
                    f"&packets.receive=7004,{BOARD_PACKETS}", "&tcp.receive=7003", nics=[{"tap": "tap0"}]),
    "b.json": guest("b", "net=eth0,10.1.0.3/24", "&tcp.echo=7001", nics=[{"tap": "tap1"}]),
})
def _(result):
    result.expect_status(0)
    result.expect_line("3 packets transmitted, 3 packets received")
    for said in result.words("udp.ping"):
        expect(said["lost"] == "0", f"round trips: {said}")
    all_said = result.words("packets.receive")
    expect(sorted(int(said["received"]) for said in all_said) == sorted([PACKETS, BOARD_PACKETS, BOARD_PACKETS]),
           f"between the VMs, from the board, to the board: {all_said}")
    for said in all_said:
        expect(said["lost"] == said["disordered"] == said["broken"] == "0", str(said))
    owned = [[int(n) for n in line.split()[1:]] for line in result.lines if line.startswith("OWNED")]
    expect(owned[0][0] == owned[1][0] and owned[1][1] - owned[0][1] <= 16,
           f"files and KiB of heap, first and last: {owned}")
    expect(result.word("tcp.receive")["bytes"] == str(16 << 20), "all that was sent")
    expect(len(result.words("tcp.exercise")) == 4, "every byte, four ways")
    said = counters(result)
    expect(said["net0.rx-dropped"] == 0 and said["net0.tx-dropped"] == 0, f"nothing dropped by us: {said}")
    expect(said["net0.tx-frames"] > PACKETS, str(said))
    for name in "ab":
        result.expect_line(f"^STATUS {name} 0$")


@lab.check("a large transfer comes in large frames", NETWORK + """
    vm a 3
    guest tcp.send=10.1.0.2,7003,16
    await a "RESULT tcp.receive"
    counter /tmp/a.sock net0.rx-frames
    counter /tmp/a.sock net0.rx-bytes
    echo poweroff >&3
    wait $a
    cat a.out
    away
""", files={"a.json": guest("a", "net=eth0,10.1.0.2/24", "&tcp.receive=7003", nics=[{"tap": "tap0"}])})
def _(result):
    expect(result.word("tcp.receive")["bytes"] == str(16 << 20), "all that was sent")
    said = counters(result)
    expect(said["net0.rx-bytes"] / said["net0.rx-frames"] > 8000, f"bytes and frames: {said}")


@lab.check("an interface down and up is a link that goes and comes; a deleted one stays away", NETWORK + """
    carrier() {
        echo show=/sys/class/net/eth0/carrier >&3
        sleep 1
        sed -n 's/.*RESULT show ok text=/CARRIER /p' a.out | tail -1
    }
    vm a 3
    guest udp.echo=7000 &
    carrier
    ip link set tap0 down
    ask a 3 udp.ping=10.1.0.1,7000,2,64
    sleep 1
    carrier
    ip link set tap0 up
    sleep 3
    ping -c 3 -W 5 10.1.0.2
    carrier
    ip link del tap0
    sleep 1
    carrier
    ask a 3 echo=alive
    echo poweroff >&3
    wait $a; echo "STATUS $?"
    cat a.out
    away
""", files={"a.json": guest("a", "net=eth0,10.1.0.2/24", nics=[{"tap": "tap0"}])})
def _(result):
    result.expect_status(0)
    expect([line for line in result.lines if line.startswith("CARRIER")] ==
           ["CARRIER 1", "CARRIER 0", "CARRIER 1", "CARRIER 0"], "the guest's link")
    result.expect_line("3 packets transmitted, 3 packets received")
    expect(result.word("echo")["text"] == "alive", "the guest goes on")
    result.expect_line("^STATUS 0$")


@lab.check("sockets both ways between VMs and the board, each VM its own", NETWORK + """
    guest vsock.echo=7005 &
    vm a 3
    vm b 4
    guest vsock.exercise=42,7004,512
    guest vsock.exercise=43,7004,512
    ask a 3 vsock.exercise=2,7005,512
    ask b 4 vsock.exercise=2,7005,512
    witness-vm run again.json </dev/null; echo "AGAIN $?"
    echo poweroff >&3; echo poweroff >&4
    wait $a; echo "STATUS a $?"
    wait $b; echo "STATUS b $?"
    guest vsock.exercise=42,7004,1; echo "AFTER $?"
    cat a.out b.out
    away
""", files={
    "a.json": guest("a", "&vsock.echo=7004", vsockCid=42),
    "b.json": guest("b", "&vsock.echo=7004", vsockCid=43),
    "again.json": guest("again", vsockCid=42),
})
def _(result):
    said = [line for line in result.lines if line.startswith("RESULT vsock.exercise ok kib=512")]
    expect(len(said) == 4, f"{len(said)} of four")
    result.expect_line("^witness-vm: again: vsock: another VM of this board has cid 42")
    result.expect_line("^AGAIN 1$")
    for name in "ab":
        result.expect_line(f"^STATUS {name} 0$")
    result.expect_line("^RESULT vsock.exercise failed")


if __name__ == "__main__":
    lab.main()
