#!/usr/bin/env python3
"""Images and virtual machines: bad input is refused with one clear error and the documented exit code,
and an upload survives what interrupts it. Three boards on this machine that say they can run VMs (their
witness-vm answers the probe and nothing else), so images are copied between them and no VM runs."""

import hashlib
import json
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from boards import Failure, main, wait_for

REFUSED, USAGE, UNREACHABLE, NOT_FOUND, NO_QUORUM = 1, 2, 3, 4, 5
MIB = 1 << 20
PROBE = """#!/bin/sh
[ "$1" = probe ] && echo '{"canHost":true,"summary":"it says so"}'
exit 1
"""


def make(cluster, name, data):
    path = os.path.join(cluster.dir, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


def boards(cluster, space=0):
    """Boards 1 to 3 in one cluster, each of which has said what it can give to VMs."""
    program = make(cluster, "witness-vm", PROBE.encode())
    os.chmod(program, 0o755)
    for number in (1, 2, 3):
        cluster.board(number).options = ["--set", f"vms.program={program}"]
    if space:
        cluster.board(1).options += ["--set", f"vms.image-space-mib={space}"]
    cluster.make(3)
    board = cluster.board(1)
    wait_for(30, "the boards do not say what they can give to VMs",
             lambda: all(node.get("host", {}).get("hosts") for node in board.json("node", "list")["items"]))
    return board


def expect(done, code, *words):
    """One error on standard error, with this exit code and these words."""
    text = done.stderr.strip()
    what = " ".join(word[:80] for word in done.args[1:])
    if done.returncode != code:
        raise Failure(f"{what!r} ended with {done.returncode}, not {code}: {text[:500]} {done.stdout[:200]}")
    if len(text.splitlines()) != 1 or done.stdout:
        raise Failure(f"{what!r} should tell one error in one line: {text[:500]}")
    for word in words:
        if word not in text:
            raise Failure(f"{what!r} does not say {word!r}: {text[:500]}")


def refuse(board, code, words, *arguments):
    expect(board.ctl(*arguments, check=False), code, *words)


def held(board, image):
    """On how many boards a whole copy is."""
    copies = board.json("image", "show", image).get("status", {}).get("copies", [])
    return sum(copy.get("state") == "held" for copy in copies)


def stored(board, digest):
    return os.path.join(board.data, "images", digest)


# --- images ---

def images(cluster, board):
    data = os.urandom(3 * MIB + 17)
    digest = hashlib.sha256(data).hexdigest()
    disk = make(cluster, "disk.raw", data)
    # The wrong file: nothing is sent.
    refuse(board, REFUSED, ["has the SHA-256 " + digest, "nothing was sent"],
           "image", "push", disk, "--sha256", "0" * 64)
    refuse(board, USAGE, ["no file"], "image", "push", cluster.dir)
    refuse(board, USAGE, ["is empty"], "image", "push", make(cluster, "empty", b""))
    refuse(board, REFUSED, ["use 1 to 64"], "image", "push", disk, "--name", "my disk")
    # An upload that is cut off: the board is killed in the middle, and it goes on where it was.
    path = f"/v1/images/{digest}"
    code, text = board.send("PUT", f"{path}?name=debian&size={len(data)}", data[:MIB])
    if code != 200 or json.loads(text)["have"] != str(MIB):
        raise Failure(f"the first piece: {code} {text}")
    board.kill()
    board.start()
    wait_for(20, "the board does not come back", board.status)
    code, text = board.get(f"{path}:upload?size={len(data)}")
    if code != 200 or json.loads(text)["have"] != str(MIB):
        raise Failure(f"after a restart of the board: {code} {text}")
    # Another size, asked or sent: both are told, and the part stays (the push below goes on with it).
    for code, text in (board.get(f"{path}:upload?size={MIB - 1}"),
                       board.send("PUT", f"{path}?name=debian&size={len(data) + 1}&offset={MIB}", data[:5])):
        if code != 409 or f"with size={len(data)}, and not size=" not in text:
            raise Failure(f"another size than the part's: {code} {text}")
    code, text = board.get(f"{path}:upload?size={len(data)}")
    if json.loads(text)["have"] != str(MIB):
        raise Failure(f"a refused upload has changed the part: {code} {text}")
    code, text = board.send("PUT", f"{path}?name=debian&size={len(data)}&offset={2 * MIB}", data[2 * MIB:3 * MIB])
    if code != 409 or "not where the upload stands" not in text:
        raise Failure(f"a piece too far on: {code} {text}")
    board.ctl("image", "push", disk, "--name", "debian", "--wait")
    if open(stored(board, digest), "rb").read() != data:
        raise Failure("what is in the store is not what was sent")
    for other in (2, 3):
        if open(stored(cluster.board(other), digest), "rb").read() != data:
            raise Failure(f"board {other} has something else")
    # The same once more is success, by any name but another one.
    if "is there already" not in board.ctl("image", "push", disk).stdout:
        raise Failure("pushing it again is not told as such")
    refuse(board, REFUSED, ["already, as the image debian"], "image", "push", disk, "--name", "other")
    other = make(cluster, "other.raw", b"something else")
    refuse(board, REFUSED, ["the name debian is that of the image"], "image", "push", other, "--name", "debian")
    # Bytes of another digest than said.
    wrong = "1" * 64
    code, text = board.send("PUT", f"/v1/images/{wrong}?name=x&size=3", b"abc")
    if code != 422 or hashlib.sha256(b"abc").hexdigest() not in text:
        raise Failure(f"a wrong digest: {code} {text}")
    refuse(board, NOT_FOUND, ["there is no image"], "image", "show", "x")
    # More than the store may hold: told before a byte is sent, and the others still take it.
    big = make(cluster, "big.raw", os.urandom(6 * MIB))
    refuse(board, REFUSED, ["the image store of this board is full: of 8 MiB", "4 MiB are taken",
                            "6 MiB more are needed"], "image", "push", big)
    cluster.board(2).ctl("image", "push", big)
    wait_for(20, "the copy that has no room is not told", lambda: any(
        "is full" in copy.get("problem", "")
        for copy in cluster.board(2).json("image", "show", "big.raw")["status"].get("copies", [])))
    wait_for(10, "board 1 does not hear of it", lambda: board.ctl("image", "show", "big.raw", check=False).returncode == 0)
    # A damaged copy is seen after a restart and replaced.
    third = cluster.board(3)
    third.stop()
    os.unlink(os.path.join(third.run, "images"))  # as a boot does
    with open(stored(third, digest), "r+b") as file:
        file.seek(MIB)
        file.write(b"damage")
    third.start()
    wait_for(30, "a damaged copy is not replaced", lambda: open(stored(third, digest), "rb").read() == data)
    wait_for(20, "the new copy is not told", lambda: held(board, "debian") == 3)
    # Removed everywhere.
    board.ctl("image", "rm", "debian", "big.raw")
    refuse(board, NOT_FOUND, ["there is no image"], "image", "rm", "debian")


# --- virtual machines ---

def vms(cluster, board):
    kernel = make(cluster, "Image", b"\0" * 56 + b"ARM\x64" + os.urandom(1000))
    board.ctl("image", "push", kernel, "--name", "linux")
    if board.json("image", "show", "linux")["kind"] != "kernel":
        raise Failure("an arm64 kernel is not seen as one")
    refuse(board, REFUSED, ["config.kernel"], "vm", "create", "web")
    refuse(board, REFUSED, ["linus"], "vm", "create", "web", "--kernel", "linus")
    refuse(board, REFUSED, ["a-z"], "vm", "create", "Web", "--kernel", "linux")
    refuse(board, REFUSED, ["MiB"], "vm", "create", "web", "--kernel", "linux", "--memory", "60G")
    refuse(board, REFUSED, ["br-none"], "vm", "create", "web", "--kernel", "linux", "--nic", "br-none")
    refuse(board, REFUSED, ["mars"], "vm", "create", "web", "--kernel", "linux", "--require", "mars")
    refuse(board, USAGE, ["--disk"], "vm", "create", "web", "--kernel", "linux", "--disk", "debian")
    refuse(board, USAGE, ["--memory", "512M"[-1]], "vm", "create", "web", "--kernel", "linux", "--memory", "512")
    field = make(cluster, "field.json", b'{"name":"web","config":{"kernel":"linux","memoryMB":64}}')
    refuse(board, USAGE, ["config", "memoryMB"], "vm", "create", "--file", field)
    text = make(cluster, "text.json", b'{"name":\n "web",,}')
    refuse(board, USAGE, ["text.json:2:"], "vm", "create", "--file", text)
    refuse(board, USAGE, ["cannot read"], "vm", "create", "web", "--file", "/nowhere")
    refuse(board, NOT_FOUND, ["there is no VM"], "vm", "start", "web")
    if board.json("vm", "list").get("items"):
        raise Failure("a refused VM is there")
    # A dry run says the same and does nothing.
    board.ctl("vm", "create", "web", "--kernel", "linux", "--dry-run")
    refuse(board, NOT_FOUND, ["there is no VM"], "vm", "show", "web")
    # What was shown can be given back.
    board.ctl("vm", "create", "web", "--kernel", "linux", "--memory", "64M")
    shown = make(cluster, "web.json", board.ctl("vm", "show", "web", "-o", "json").stdout.encode())
    board.ctl("vm", "set", "web", "--file", shown)
    refuse(board, REFUSED, ["web"], "vm", "create", "web", "--kernel", "linux")
    refuse(board, REFUSED, ["web"], "image", "rm", "linux")
    refuse(board, USAGE, ["nothing to set"], "vm", "set", "web")
    refuse(board, REFUSED, ["revision"], "vm", "set", "web", "--cpus", "2", "--if-revision", "1")
    refuse(board, REFUSED, ["no such board"], "vm", "move", "web", "mars")
    # A board that cannot take it.
    board.ctl("vm", "set", "web", "--require", "board1")
    board.ctl("vm", "start", "web")
    refuse(board, REFUSED, ["board2"], "vm", "move", "web", "board2")
    refuse(board, REFUSED, ["stop"], "vm", "delete", "web")
    shown = board.ctl("vm", "show", "web").stdout
    for word in ("Wanted:", "running", "linux", "board1"):
        if word not in shown:
            raise Failure(f"vm show does not say {word!r}: {shown}")
    board.ctl("vm", "stop", "web", "--now", "--wait")
    refuse(board, REFUSED, ["web", "is stopped"], "vm", "logs", "web")
    board.ctl("image", "push", make(cluster, "root.raw", bytes(4096)), "--name", "root", "--kind", "disk")
    board.ctl("vm", "create", "db", "--kernel", "linux", "--disk", "overlay=root", "--disk", "data=8M")
    shown = board.ctl("vm", "show", "db").stdout
    for word in ("begins as root; what is written to it is gone after a move", "pins the VM to it (none yet)"):
        if word not in shown:
            raise Failure(f"vm show does not say {word!r}: {shown}")
    board.ctl("vm", "delete", "db", "--yes")
    refuse(board, NOT_FOUND, ["there is no VM"], "vm", "delete", "db")
    # One that fails on every board that it may be on: whoever waits hears it, and so does who tries it again.
    board.ctl("vm", "create", "sick", "--kernel", "linux", "--memory", "64M", "--require", "board1",
              "--restart-attempts", "1", "--restart-backoff", "100ms")
    refuse(board, REFUSED, ["sick is failed", "failed on every board"], "vm", "start", "sick", "--wait")
    board.ctl("vm", "start", "sick")
    if not any(event["type"] == "vm.restarted" for event in board.json("event", "list")["items"]):
        raise Failure("vm start of a VM that has failed does not try it again")
    # A board that is off takes nothing, and the VM stays where it is.
    cluster.board(3).kill()
    wait_for(20, "the leader does not see that board 3 is off", lambda: "board3 is away" in
             board.ctl("vm", "move", "sick", "board3", check=False).stderr)
    refuse(board, REFUSED, ["sick stays where it is", "board3 is away"], "vm", "move", "sick", "board3")
    refuse(board, REFUSED, ["sick stays where it is", "no other board", "1 is away"], "vm", "move", "sick")
    board.ctl("vm", "stop", "sick", "--now", "--wait")
    # Without a majority: refused at once, and it says why.
    cluster.board(2).kill()
    wait_for(20, "the board does not see that it is alone",
             lambda: (board.local() or {}).get("state") == "no-quorum")
    refuse(board, NO_QUORUM, ["the cluster has no quorum"], "vm", "start", "web")
    if "web" not in board.ctl("vm", "list").stdout:
        raise Failure("without a quorum the list of VMs cannot be read")


def bad_input(cluster):
    board = boards(cluster, space=8)
    images(cluster, board)
    vms(cluster, board)


if __name__ == "__main__":
    main([bad_input])
