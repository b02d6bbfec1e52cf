#!/usr/bin/env python3
"""What happens to a cluster in the course of the years, by the commands that are meant for it. CI runs the short
ones; `make years` runs all."""

import http.client
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from agents import Agent, holder, site_of_agents
from boards import Failure, die_with_parent, main, wait_for
from demo import SiteNodes
from qnet_client import QnetClient
from test_bad_input import SHIM

PREFIX = "office-"


def attached_sites(cluster, count):
    """`count` sites of two nodes each, spread over the boards and all whole."""
    path = os.path.join(cluster.dir, "sites.csv")
    with open(path, "w") as file:
        file.write("name\n" + "".join(f"{PREFIX}{number:04d}\n" for number in range(1, count + 1)))
    cluster.any().ctl("site", "import", path)
    nodes = SiteNodes(cluster, count, [])
    nodes.tell("attach")
    nodes.settle(60)
    return nodes


def node(board, name):
    return next(item for item in board.json("node", "list")["items"] if item["name"] == name)


def sessions(board, name):
    return node(board, name).get("status", {}).get("sessions", 0)


def drain_the_leader(cluster):
    cluster.make(3)
    nodes = attached_sites(cluster, 30)
    leader = cluster.leader()
    other = next(board for board in cluster.boards.values() if board is not leader)
    if sessions(other, leader.name) == 0:
        raise Failure("no site node is attached to the board that is to be drained")
    other.ctl("node", "drain", leader.name, "--timeout", "60s")
    if sessions(other, leader.name) != 0 or cluster.leader(through=other) is leader:
        raise Failure("the drain returned too early")
    wait_for(60, "not all nodes attached elsewhere", lambda: nodes.numbers()["nodes-attached"] == 60)
    nodes.settle(60)
    if sessions(other, leader.name) != 0:
        raise Failure("site nodes came back to the drained board")
    if "drained" not in other.ctl("node", "list").stdout or "1 drained" not in other.ctl("status").stdout:
        raise Failure("node list or status do not show that a board is drained")
    if leader.get("/readyz") != (503, "drained: this board takes no site nodes\n"):
        raise Failure(f"a drained board says {leader.get('/readyz')}")
    # Through a restart.
    leader.stop()
    leader.start()
    wait_for(20, "the drained board does not come back",
             lambda: node(other, leader.name).get("status", {}).get("reachable"))
    wait_for(20, "the board has forgotten that it is drained", lambda: leader.get("/readyz")[0] == 503)
    if sessions(other, leader.name) != 0:
        raise Failure("the drained board took site nodes after its restart")
    # The others cannot all be drained.
    rest = [board for board in cluster.boards.values() if board is not leader]
    rest[0].ctl("node", "drain", rest[1].name, "--timeout", "60s")
    done = rest[0].ctl("node", "drain", rest[0].name, check=False)
    if done.returncode == 0 or "no other board" not in done.stderr:
        raise Failure(f"the last board was drained: {done.stderr}")
    rest[0].ctl("node", "undrain", rest[1].name)
    rest[0].ctl("node", "drain", rest[0].name, "--timeout", "60s")
    done = rest[0].ctl("cluster", "remove", rest[1].name, "--yes", check=False)
    if done.returncode == 0 or "only drained boards" not in done.stderr:
        raise Failure(f"the last board that serves was removed: {done.stderr}")
    done = rest[0].ctl("cluster", "transfer", leader.name, check=False)
    if done.returncode == 0 or "drained" not in done.stderr:
        raise Failure(f"a drained board was made the leader: {done.stderr}")
    leader.ctl("node", "undrain", leader.name)
    wait_for(20, "the board does not serve again", lambda: leader.get("/readyz")[0] == 200)
    if nodes.numbers()["violations"] != 0:
        raise Failure("two sides had the vote")
    nodes.end()


def drain_spares_who_needs_the_vote(cluster):
    cluster.make(3)
    nodes = attached_sites(cluster, 12)
    nodes.tell("split 100")
    nodes.settle(60)
    board = next(board for board in cluster.boards.values() if sessions(cluster.board(1), board.name) > 0)
    before = sessions(cluster.board(1), board.name)
    done = cluster.board(1).ctl("node", "drain", board.name, "--timeout", "3s", check=False)
    if done.returncode != 5 or "need the vote" not in done.stderr:
        raise Failure(f"drained though every site needs the vote: {done.returncode} {done.stderr}")
    if sessions(cluster.board(1), board.name) != before:
        raise Failure("a node that needs the vote was sent away")
    nodes.tell("heal")
    wait_for(60, "the board keeps nodes of sites that are whole again",
             lambda: sessions(cluster.board(1), board.name) == 0)
    nodes.settle(60)
    nodes.end()


def replace_a_dead_board(cluster):
    cluster.make(3)
    nodes = attached_sites(cluster, 10)
    first = cluster.board(1)
    dead = cluster.board(3)
    wait_for(20, "not all boards are reached", lambda: (first.status() or {}).get("nodesReachable") == 3)
    done = first.ctl("node", "replace", "board3", check=False)
    if done.returncode == 0 or "alive" not in done.stderr:
        raise Failure(f"a living board could be replaced: {done.stderr}")
    token = None
    dead.kill()

    def offered():
        done = first.ctl("node", "replace", "board3", "-o", "name", check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    token = wait_for(20, "the dead board cannot be replaced", offered)
    # Another machine with the dead one's address: an empty directory and a name of its own.
    fresh = cluster.board(4, host=dead.host)
    fresh.start()
    fresh.ctl("cluster", "join", first.address, "--token", token)
    names = sorted((item["name"], item["role"]) for item in first.json("node", "list")["items"])
    if names != [("board1", "voter"), ("board2", "voter"), ("board3", "voter")]:
        raise Failure(f"the boards are {names}")
    if fresh.local()["nodeName"] != "board3" or node(first, "board3")["id"] in ("1", "2", "3"):
        raise Failure(f"the new board is {fresh.local()}")
    done = cluster.board(5).start().ctl("cluster", "join", first.address, "--token", token, check=False)
    if done.returncode == 0 or "used" not in done.stderr:
        raise Failure(f"the place was given twice: {done.stderr}")
    cluster.board(5).kill()
    # It counts: one of the others may fail now, and the new one has all sites.
    cluster.board(2).kill()
    wait_for(20, "the replaced cluster does not survive a board",
             lambda: first.ctl("site", "create", "later", check=False).returncode == 0)
    wait_for(10, "the new board lacks sites", lambda: len(fresh.json("site", "list")["items"]) == 11)
    wait_for(60, "the sites' nodes are not all attached", lambda: nodes.numbers()["nodes-attached"] == 20)
    nodes.settle(60)
    if nodes.numbers()["violations"] != 0:
        raise Failure("two sides had the vote")
    nodes.end()
    # The dead one comes back from the grave: nobody speaks to it.
    fresh.stop()
    dead.start(wait=False)
    time.sleep(3)
    local = dead.local()
    if local is None or local.get("lease") or local["state"] == "serving":
        raise Failure(f"the dead board serves again: {local}")


def grant_epochs(board):
    return {site["name"]: int(site.get("status", {}).get("grant", {}).get("epoch", 0))
            for site in board.json("site", "list")["items"]}


def write_sites(board, stop, written):
    number = 0
    while not stop.is_set():
        number += 1
        if board.ctl("site", "create", f"load-{number:04d}", check=False).returncode == 0:
            written.append(f"load-{number:04d}")


def backup_and_restore(cluster):
    cluster.make(3)
    nodes = attached_sites(cluster, 10)
    first = cluster.board(1)
    # More than goes into one entry of the log.
    many = os.path.join(cluster.dir, "many.csv")
    with open(many, "w") as file:
        file.write("name,label.region\n" + "".join(f"many-{number:04d},emea\n" for number in range(3000)))
    first.ctl("site", "import", many)
    path = os.path.join(cluster.dir, "b.backup")
    stop = threading.Event()
    written = []
    writer = threading.Thread(target=write_sites, args=(cluster.board(2), stop, written))
    writer.start()
    try:
        wait_for(20, "nothing is written", lambda: len(written) > 20)
        before = list(written)
        first.ctl("cluster", "backup", path)
        after = len(written)
    finally:
        stop.set()
        writer.join()
    if os.stat(path).st_mode & 0o777 != 0o600:
        raise Failure("others may read the backup")
    done = first.ctl("cluster", "backup", path, check=False)
    if done.returncode != 2 or "--force" not in done.stderr:
        raise Failure(f"a backup was overwritten: {done.stderr}")
    epochs = grant_epochs(first)

    # What is refused, and changes nothing.
    fresh = cluster.board(4, host=first.host)
    for board in list(cluster.boards.values())[:3]:
        board.kill()
    fresh.start()
    with open(path, "rb") as file:
        good = file.read()

    def refused(data, word, *options):
        bad = os.path.join(cluster.dir, "bad.backup")
        with open(bad, "wb") as file:
            file.write(data)
        done = fresh.ctl("cluster", "restore", bad, "--yes", *options, check=False)
        if done.returncode == 0 or word not in done.stderr:
            raise Failure(f"expected \"{word}\", got {done.returncode}: {done.stderr}")
        code, text = fresh.send("POST", "/v1/cluster:restore?name=" + (options[1] if options else ""), data)
        if code == 200 or word not in text:
            raise Failure(f"the board itself: expected \"{word}\", got {code}: {text}")
        if fresh.local()["state"] != "new" or os.path.exists(os.path.join(fresh.data, "identity.json")):
            raise Failure("a refused restore left something behind")

    refused(good[:-1], "damaged or cut off")
    refused(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:], "damaged")
    refused(b"name\noffice-1\n", "not a backup")
    refused(good, "is of cluster", "--cluster-name", "other")
    done = fresh.ctl("cluster", "restore", path, check=False)
    if done.returncode != 2 or "--yes" not in done.stderr:
        raise Failure(f"restored without being asked: {done.stderr}")

    fresh.ctl("cluster", "restore", path, "--yes")
    done = fresh.ctl("cluster", "restore", path, "--yes", check=False)
    if done.returncode == 0 or "already in a cluster" not in done.stderr:
        raise Failure(f"restored twice: {done.stderr}")
    names = [name for name in sorted(grant_epochs(fresh)) if name.startswith("load-")]
    if names != sorted(written)[:len(names)] or not len(before) <= len(names) <= after + 1:
        raise Failure(f"the backup is of no moment: {len(before)} before, {after} after, {len(names)} in it")
    if len([name for name in grant_epochs(fresh) if name.startswith("many-")]) != 3000:
        raise Failure("sites of the backup are missing")
    wait_for(60, "the sites' nodes do not come back", lambda: nodes.numbers()["nodes-attached"] == 20)
    nodes.settle(60)
    new = grant_epochs(fresh)
    for name, epoch in epochs.items():
        if epoch != 0 and new[name] < max(epochs.values()) + (1 << 40):
            raise Failure(f"site {name}: epoch {epoch} of before, {new[name]} now")
    if [item["name"] for item in fresh.json("node", "list")["items"]] != ["board4"]:
        raise Failure("old boards are in the new history")
    # An old board comes back: it is of another cluster, and cannot join with what it has.
    old = cluster.board(2)
    old.start()
    time.sleep(2)
    if old.local().get("lease"):
        raise Failure("an old board alone has a lease")
    old.kill()
    shutil.rmtree(old.data)
    old.start().ctl("cluster", "join", fresh.address, "--token", cluster.token(fresh))
    wait_for(10, "the second board lacks sites", lambda: len(grant_epochs(old)) == len(new))
    if nodes.numbers()["violations"] != 0:
        raise Failure("two sides had the vote")
    nodes.end()


def recover_from_a_lost_majority(cluster):
    cluster.make(3)
    nodes = attached_sites(cluster, 10)
    first = cluster.board(1)
    done = first.ctl("cluster", "recover", "--cluster-name", "lab", check=False)
    if done.returncode == 0 or "has a leader" not in done.stderr:
        raise Failure(f"recovered from nothing: {done.stderr}")
    epochs = grant_epochs(first)
    first.ctl("site", "create", "last")
    survivor = cluster.board(2)
    cluster.board(1).kill()
    cluster.board(3).kill()
    # Started anew without the others it does not even know what was agreed upon.
    survivor.stop()
    survivor.start()
    time.sleep(11)
    plan = survivor.ctl("cluster", "recover", "--dry-run").stderr
    if "What may be lost" not in plan or "board1 board3" not in plan:
        raise Failure(f"the risk is not spelled out: {plan}")
    done = survivor.ctl("cluster", "recover", check=False, stdin="")
    if done.returncode != 2 or "--cluster-name" not in done.stderr:
        raise Failure(f"recovered without the name: {done.returncode} {done.stderr}")
    done = survivor.ctl("cluster", "recover", "--cluster-name", "labor", check=False)
    if done.returncode == 0 or "not the name" not in done.stderr or survivor.local().get("lease"):
        raise Failure(f"recovered with a wrong name: {done.stderr}")
    survivor.ctl("cluster", "recover", "--cluster-name", "lab")
    names = sorted(grant_epochs(survivor))
    if "last" not in names or len(names) != 11:
        raise Failure(f"an acknowledged write is gone: {names}")
    wait_for(60, "the sites' nodes do not come back", lambda: nodes.numbers()["nodes-attached"] == 20)
    nodes.settle(60)
    new = grant_epochs(survivor)
    if any(new[name] <= epoch for name, epoch in epochs.items() if epoch):
        raise Failure(f"epochs did not jump: {epochs} {new}")
    if not [name for name in os.listdir(survivor.data) if name.endswith(".backup")]:
        raise Failure("no backup of the state before")
    # It lives through a restart, and grows again.
    survivor.stop()
    survivor.start()
    fresh = cluster.board(4).start()
    fresh.ctl("cluster", "join", survivor.address, "--token", cluster.token(survivor))
    # One old board alone is nothing, and not let in.
    old = cluster.board(1)
    old.start()
    time.sleep(3)
    if old.local().get("lease"):
        raise Failure("the old board serves")
    if nodes.numbers()["violations"] != 0:
        raise Failure("two sides had the vote")
    nodes.end()


def serial(board):
    done = subprocess.run(["openssl", "x509", "-in", os.path.join(board.data, "node.crt"), "-noout", "-serial"],
                          capture_output=True, text=True, check=True)
    return done.stdout.strip().partition("=")[2].lower()


def shown_serial(board):
    """Of the certificate that the board presents now."""
    hello = subprocess.run(["openssl", "s_client", "-connect", board.address], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True)
    done = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=hello.stdout, capture_output=True,
                          text=True)
    return done.stdout.strip().partition("=")[2].lower()


def ctl_remote(board, *arguments):
    """witnessctl as on an operator's machine."""
    return subprocess.run([os.path.join(board.cluster.bin, "witnessctl"), "--server", f"https://{board.address}",
                           *arguments], capture_output=True, text=True, timeout=60)


def client_files(board, name, role="viewer"):
    """--cert, --key and --ca of a new client certificate."""
    directory = os.path.join(board.cluster.dir, "clients")
    board.ctl("cert", "create", name, "--role", role, "--out", directory)
    return ["--cert", f"{directory}/{name}.crt", "--key", f"{directory}/{name}.key", "--ca",
            f"{directory}/ca.crt"]


def certificates_renew_themselves(cluster):
    cluster.make(3)
    nodes = attached_sites(cluster, 5)
    boards = list(cluster.boards.values())
    first = boards[0]
    done = first.ctl("cluster", "set", "--certificate-life", "5s", check=False)
    if done.returncode == 0 or "from a minute" not in done.stderr:
        raise Failure(f"a life of 5 s was taken: {done.stderr}")
    files = client_files(first, "old")
    first.ctl("cluster", "set", "--certificate-life", "60s")
    short = client_files(first, "short")
    old = {board.name: serial(board) for board in boards}
    # Those of 90 days stay; one that is rotated is of the new life.
    first.ctl("cluster", "rotate-ca", "--yes")
    wait_for(30, "the rotation does not go on",
             lambda: first.json("cluster", "status").get("caRotation") == "overlap")
    wait_for(30, "not every board has a certificate of the new CA",
             lambda: all(serial(board) != old[board.name] for board in boards))
    short_lived = {board.name: serial(board) for board in boards}
    began = time.monotonic()
    refused = 0
    while any(serial(board) == short_lived[board.name] for board in boards):
        if time.monotonic() - began > 75:
            raise Failure("the certificates were not renewed")
        if first.ctl("site", "create", f"s{time.monotonic_ns()}", check=False).returncode != 0:
            refused += 1
        time.sleep(0.5)
    if refused != 0:
        raise Failure(f"{refused} writes failed while certificates were renewed")
    for board in boards:
        wait_for(5, f"{board.name} still shows its old certificate", lambda: shown_serial(board) == serial(board))
    # Past the end of the first short ones: a link made now uses the new ones.
    time.sleep(max(0, 62 - (time.monotonic() - began)))
    boards[2].stop()
    boards[2].start()
    wait_for(20, "a board with a renewed certificate is not let in", lambda: boards[2].local().get("lease"))
    # The client's own: a file of 90 days stays as it is, the short one has ended.
    before = open(files[1]).read()
    done = ctl_remote(first, *files, "status")
    if done.returncode != 0 or open(files[1]).read() != before:
        raise Failure(f"a certificate of 90 days was refused or changed: {done.stderr}")
    done = ctl_remote(first, *files, "cert", "renew")
    if done.returncode != 0 or open(files[1]).read() == before:
        raise Failure(f"cert renew: {done.stdout} {done.stderr}")
    if ctl_remote(first, *files, "status").returncode != 0:
        raise Failure("the renewed certificate does not hold")
    if ctl_remote(first, *short, "status").returncode == 0:
        raise Failure("an expired certificate holds")
    nodes.settle(30)
    if nodes.numbers()["violations"] != 0 or nodes.numbers()["connections-lost"] > 10:
        raise Failure(f"sites suffered: {nodes.numbers()}")
    nodes.end()


def watch_events(board, *who):
    return subprocess.Popen([os.path.join(board.cluster.bin, "witnessctl"), "--server", f"https://{board.address}", *who,
                             "event", "list", "--watch"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            preexec_fn=die_with_parent)


def watch_ends(watch, by):
    try:
        watch.wait(max(0.1, by - time.monotonic()))
        return True
    except subprocess.TimeoutExpired:
        return False


def keep_alive(board, cert, key, ca):
    """Asks over one connection that stays: the status of each answer."""
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    context.load_cert_chain(cert, key)
    host, port = board.address.rsplit(":", 1)
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)

    def ask():
        connection.request("GET", "/v1/cluster")
        answer = connection.getresponse()
        answer.read()
        return answer.status

    return ask


class Unwritable:
    """A file of a board's data directory that cannot be replaced, as on a card that has become read-only."""

    def __init__(self, board, name):
        self.path = os.path.join(board.data, name)
        os.rename(self.path, self.path + ".was")
        os.makedirs(os.path.join(self.path, "in-the-way"))

    def mend(self):
        os.rmdir(os.path.join(self.path, "in-the-way"))
        os.rmdir(self.path)
        os.rename(self.path + ".was", self.path)


def rotate_the_ca(cluster):
    cluster.make(3)
    boards = list(cluster.boards.values())
    first = boards[0]
    believed, own = (Unwritable(boards[1], name) for name in ("ca.crt", "node.crt"))
    agents = site_of_agents(cluster)
    for agent in agents:
        agent.start()
    held = holder(agents)
    files = client_files(first, "ann")
    token = first.ctl("token", "create", "--role", "viewer", "-o", "name").stdout.strip()
    of_before = {"node": cluster.token(first), "agent": first.json("site", "enroll", "shop", "--agent")["secret"]}
    failures = []
    stop = threading.Event()

    def use():
        while not stop.is_set():
            for way in (files, ["--token", token]):
                for board in boards:
                    # Not "status": while a link to the leader is made anew it says that there is none.
                    done = ctl_remote(board, *way, "site", "list", "-o", "name")
                    if done.returncode != 0:
                        failures.append(f"{board.name}: {done.stderr.strip()}")
            if first.ctl("site", "create", f"s{time.monotonic_ns()}", check=False).returncode != 0:
                failures.append("a write")

    user = threading.Thread(target=use)
    user.start()
    try:
        # A board that is away holds the rotation up: it would not believe the others any more.
        boards[2].stop()
        failures.clear()
        first.ctl("cluster", "rotate-ca", "--yes")
        time.sleep(6)
        if first.json("cluster", "status")["caRotation"] != "trust":
            raise Failure("the rotation went on without a board")
        boards[2].start()
        wait_for(30, "the board does not come back", lambda: (first.status() or {}).get("nodesReachable") == 3)
        time.sleep(3)
        if first.json("cluster", "status")["caRotation"] != "trust":
            raise Failure("the rotation went on though a board cannot write what it is to believe")
        believed.mend()
        wait_for(30, "the rotation does not go on",
                 lambda: first.json("cluster", "status").get("caRotation") == "overlap")
        time.sleep(1)
        failures.clear()
        time.sleep(5)
    finally:
        stop.set()
        user.join()
    if failures:
        raise Failure(f"{len(failures)} calls failed, first: {failures[0]}")
    if "rotate-ca --finish" not in first.ctl("status").stdout:
        raise Failure("status does not tell that the old CA is still believed")
    # A board that joins now, and a token of now, know the new CA alone; a token of before is led to it.
    for number, secret in ((4, of_before["node"]), (5, cluster.token(first))):
        cluster.board(number).start().ctl("cluster", "join", first.address, "--token", secret)
    late = Agent(cluster, "shop", 3).enroll(of_before["agent"], first).start()
    wait_for(10, "an agent that was enrolled with a token of before is not let in",
             lambda: late.status()["connected"] != "no")
    late.kill()
    new = client_files(first, "bob")
    time.sleep(3)
    done = first.ctl("cluster", "rotate-ca", "--finish", "--yes", check=False)
    if done.returncode == 0 or "board2 has no certificate of the new CA on its disk" not in done.stderr:
        raise Failure(f"the rotation was finished though a board could not write its certificate: {done.stderr}")
    own.mend()

    def refused():
        done = first.ctl("cluster", "rotate-ca", "--finish", "--yes", check=False)
        if done.returncode == 0:
            raise Failure("the rotation was finished though agents and clients have no other certificate")
        return "3 agents and API clients have no certificate of the new CA" in done.stderr

    wait_for(20, "the rotation waits for a board still", refused)
    # What was let in by the old CA, and stays connected.
    kept = keep_alive(boards[1], *files[1::2])
    watches = [watch_events(boards[1], *who) for who in (files, ("--token", token))]
    if kept() != 200 or not held.holds():
        raise Failure("a client or an agent of before is not let in any more")
    time.sleep(15)  # for the links of all boards to be made anew
    terms = first.json("cluster", "status")["status"]["term"]
    first.ctl("cluster", "rotate-ca", "--finish", "--force", "--yes")
    began = time.monotonic()
    wait_for(6, "an agent of the old CA is still connected",
             lambda: all(agent.status()["connected"] == "no" for agent in agents))
    wait_for(6, "a kept connection of the old CA is still served", lambda: kept() == 401)
    for watch, what in zip(watches, ("certificate", "token")):
        if not watch_ends(watch, began + 6):
            raise Failure(f"a watch with a {what} of the old CA goes on")
    wait_for(6, "an agent of the old CA holds the lease", lambda: not held.holds())
    for way, good in ((files, False), (["--token", token], False), (new, True)):
        done = ctl_remote(boards[1], *way, "status")
        if (done.returncode == 0) != good:
            raise Failure(f"after the end of the old CA {way[1]}: {done.returncode} {done.stderr}")
    # Links between the boards were made anew, and nobody missed them.
    if first.json("cluster", "status")["status"]["term"] != terms:
        raise Failure("another leader was elected when the links were made anew")
    for agent in agents:
        agent.kill()
    for board in boards:
        board.stop()
        board.start()
    wait_for(30, "the boards do not find each other again",
             lambda: (first.status() or {}).get("nodesReachable") == 5)


class SiteFiles:
    """What a site's nodes were given to attach with: by witnessctl, with these words before the command."""

    def __init__(self, board, site, *who):
        self.board, self.site = board, site
        self.path = os.path.join(board.cluster.dir, f"qnet-{site}")
        done = ctl_remote(board, *who, "site", "enroll", site, "--out", self.path) if who else \
            board.ctl("site", "enroll", site, "--out", self.path)
        if done.returncode != 0:
            raise Failure(f"the site cannot be enrolled: {done.stderr}")
        subprocess.run(["openssl", "pkcs12", "-in", f"{self.path}/qdevice-net-node.p12", "-passin", "pass:",
                        "-nodes", "-out", f"{self.path}/both.pem"], check=True, capture_output=True)

    def attach(self):
        """A client that said INIT, and what it was told; None: it was sent away before."""
        client = QnetClient(self.board.sites_address)
        try:
            client.preinit(self.site.encode())
            client.starttls(f"{self.path}/qnetd-cacert.crt", f"{self.path}/both.pem", f"{self.path}/both.pem")
            return client, client.init(1)
        except (EOFError, OSError):
            return client, None


def ends(client, seconds):
    client.socket.settimeout(seconds)
    try:
        return client.closed()
    except TimeoutError:
        return False


def revocation_ends_sessions(cluster):
    cluster.make(3)
    first = cluster.board(1)
    files = client_files(first, "ann")
    first.ctl("site", "create", "office")
    client, answer = SiteFiles(first, "office").attach()
    if answer != 0:
        raise Failure("the site node is not let in")
    watch = watch_events(first, *files)
    time.sleep(1)
    serials = {(row["kind"], row["subject"]): row["serial"]
               for row in first.json("cert", "list")["items"]}

    def revoke(kind, subject):
        first.ctl("cert", "revoke", serials[kind, subject], "--yes")
        return time.monotonic()

    began = revoke("site", "office")
    if not ends(client, 5):
        raise Failure("the session of a revoked site certificate lives")
    began = revoke("client", "ann")
    if not watch_ends(watch, began + 6):
        raise Failure("a watch with a revoked certificate lives")
    # A board: its links end, it loses its lease, and does not let itself in again.
    victim = next(board for board in cluster.boards.values() if board is not first
                  and board is not cluster.leader())
    revoke("node", victim.name)
    wait_for(10, "a board with a revoked certificate keeps its lease", lambda: not victim.local().get("lease"))
    time.sleep(4)
    if victim.local().get("lease"):
        raise Failure("a board with a revoked certificate came back")


def previous_release():
    """The directory of the previous release's daemon, which is built from this repository's history."""
    script = os.path.join(os.path.dirname(__file__), "..", "previous.sh")
    done = subprocess.run([script], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"the previous release does not build: {done.stderr}")
    return os.path.join(os.path.dirname(script), "..", "build", "previous", "bin")


def rolling_upgrade(cluster):
    previous = previous_release()
    for number in (1, 2, 3):
        cluster.board(number).bin = previous
    cluster.make(3)
    boards = list(cluster.boards.values())
    nodes = attached_sites(cluster, 10)
    stop = threading.Event()
    written = []
    writer = threading.Thread(target=write_sites, args=(boards[0], stop, written))
    for board in reversed(boards):  # the first one, which is written through, last
        if board is boards[0]:
            writer.start()
            try:
                wait_for(20, "nothing is written in a mixed cluster", lambda: len(written) > 20)
            finally:
                stop.set()
                writer.join()
        board.stop()
        board.bin = cluster.bin
        board.start()
        wait_for(20, f"{board.name} is not back after its upgrade", lambda: board.local().get("lease"))
        nodes.settle(60)
        if board is boards[0]:
            break
        # Mixed: each kind leads and is written through; what is new is refused in words, by any board.
        for leader in (board, boards[0]):
            board.ctl("cluster", "transfer", leader.name)
            wait_for(20, f"{leader.name} does not lead", lambda: cluster.leader(through=board) is leader)
            for through in (board, boards[0]):
                name = f"by-{leader.name}-{through.name}-{board.name}"
                through.ctl("site", "create", name)
                for other in boards:
                    wait_for(5, f"{other.name} lacks {name}", lambda: name in grant_epochs(other))
            done = board.ctl("node", "drain", boards[1].name, "--no-wait", check=False)
            if done.returncode == 0 or "older release" not in done.stderr:
                raise Failure(f"drained in a mixed cluster: {done.stderr}")
        if "Upgrade" not in board.ctl("status").stdout and cluster.leader(through=board) is board:
            raise Failure("status does not tell of the upgrade")

    def risen():
        cluster = boards[0].json("cluster", "status")
        return cluster.get("level", 0) > 1 and cluster["level"] == cluster["status"]["levelHere"]

    wait_for(20, "the level does not rise", risen)
    boards[0].ctl("node", "drain", boards[1].name, "--timeout", "60s")
    boards[0].ctl("node", "undrain", boards[1].name)
    versions = {item["version"] for item in boards[0].json("node", "list")["items"]}
    if len(versions) != 1:
        raise Failure(f"the boards say {versions}")
    # Nobody comes back with the old release.
    old = cluster.board(4)
    old.bin = previous
    old.start()
    done = old.ctl("cluster", "join", boards[0].address, "--token", cluster.token(boards[0]), check=False)
    if done.returncode == 0 or "too old" not in done.stderr:
        raise Failure(f"a board of the old release joined: {done.stderr}")
    boards[2].stop()
    boards[2].bin = previous
    boards[2].start(wait=False)
    time.sleep(5)
    if (boards[2].local() or {}).get("lease"):
        raise Failure("a board that was set back to the old release serves")
    if nodes.numbers()["violations"] != 0:
        raise Failure("two sides had the vote")
    nodes.end()


def tenants_keep_to_themselves(cluster):
    cluster.make(3)
    first, second = cluster.board(1), cluster.board(2)
    token = first.ctl("token", "create", "--role", "operator", "--tenant", "red", "-o", "name").stdout.strip()
    first.ctl("site", "create", "b1", "-l", "tenant=blue")
    first.ctl("tenant", "set", "red", "--max-sites", "2")

    def red(*arguments):
        return ctl_remote(second, "--token", token, *arguments)

    path = os.path.join(cluster.dir, "red.csv")
    with open(path, "w") as file:
        file.write("name,label.region\nr1,emea\nr2,emea\n")
    wait_for(10, "the tenant cannot import", lambda: red("site", "import", path).returncode == 0)
    if red("site", "list", "-o", "name").stdout.split() != ["r1", "r2"]:
        raise Failure(f"the tenant sees {red('site', 'list').stdout}")
    # Each batch of a file alone is below the quota, together they are above: looked at, not only when it is too late.
    many = os.path.join(cluster.dir, "many.csv")
    with open(many, "w") as file:
        file.write("name\n" + "".join(f"r{n}\n" for n in range(1, 601)))
    first.ctl("tenant", "set", "red", "--max-sites", "599")
    wait_for(10, "the quota is not everywhere", lambda: "may have 599 sites, and this makes 600;" in
             red("site", "import", many, "--dry-run").stderr)
    done = red("site", "import", many, "--dry-run")
    if done.returncode != 1:
        raise Failure(f"over its quota, looked at: {done.returncode} {done.stdout} {done.stderr}")
    first.ctl("tenant", "set", "red", "--max-sites", "600")
    wait_for(10, "a file that fits is refused", lambda: red("site", "import", many, "--dry-run").returncode == 0)
    first.ctl("tenant", "set", "red", "--max-sites", "2")
    done = red("site", "create", "r3")
    if done.returncode == 0 or "may have 2 sites" not in done.stderr:
        raise Failure(f"over its quota: {done.stderr}")
    for words in (("site", "show", "b1"), ("site", "delete", "b1"), ("site", "set", "b1", "--tls", "on")):
        if red(*words).returncode != 4:
            raise Failure(f"{words}: {red(*words)}")
    done = red("status")
    if done.returncode == 0 or "tenant red only" not in done.stderr:
        raise Failure(f"the tenant sees the cluster: {done.stdout} {done.stderr}")
    rows = {row["name"]: (row.get("sites", 0), row.get("maxSites", 0))
            for row in first.json("tenant", "list")["items"]}
    if rows != {"blue": (1, 0), "red": (2, 2)}:
        raise Failure(f"tenant list: {rows}")
    # What was given out for a site opens no later one of its name.
    files = SiteFiles(second, "r1", "--token", token)
    client, answer = files.attach()
    if answer != 0:
        raise Failure("the tenant's node is not let in")
    done = red("site", "delete", "r1")
    if done.returncode != 0:
        raise Failure(f"the tenant cannot delete its site: {done.stderr}")
    if not ends(client, 5):
        raise Failure("the session of a site that was deleted lives")
    first.ctl("site", "create", "r1", "-l", "tenant=blue", "--tls", "required")
    wait_for(10, "the new site is not everywhere", lambda: second.ctl("site", "show", "r1", check=False).returncode == 0)
    if files.attach()[1] is not None:
        raise Failure("a certificate of before opens another tenant's site")


def alarms_before_the_day(cluster):
    cluster.make(3)
    first = cluster.board(1)
    nodes = attached_sites(cluster, 3)  # all from one address: this machine's

    def alarms(through=first):
        rows = through.json("cluster", "status").get("alarms", [])
        return {(row["kind"], row["subject"]) for row in rows}

    def raised_sites(through):  # this machine's disk may be slow enough for alarms of its own
        return [event for event in through.json("event", "list", "-n", "500")["items"]
                if event["type"] == "alarm.raised" and event.get("site")]

    expected = {("site-one-address", f"{PREFIX}000{number}") for number in (1, 2, 3)}
    wait_for(40, "no alarm for sites behind one address", lambda: expected <= alarms())
    if "lose the witness together" not in first.ctl("status").stdout:
        raise Failure("status does not tell of the alarms")
    if first.get("/metrics")[1].count('tiebreak_alarms{kind="site-one-address"} 3') != 1:
        raise Failure("the metrics do not count the alarms")
    for board in cluster.boards.values():
        first.ctl("node", "set", board.name, "--zone", "hall")
    first.ctl("site", "set", f"{PREFIX}0001", "-l", "zone=hall")
    zone = ("site-zone", f"{PREFIX}0001")
    wait_for(40, "no alarm for a site in its board's zone", lambda: zone in alarms())
    # A clock that is an hour ahead (as in test_bad_input.py).
    shim = os.path.join(cluster.dir, "shim.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-xc", "-o", shim, "-"], input=SHIM.encode(), check=True)
    ahead = next(board for board in cluster.boards.values() if board is not cluster.leader() and board is not first)
    card = os.path.realpath(os.path.join(cluster.bin, "slow_card.so"))
    late = os.path.join(cluster.dir, "late")
    ahead.stop()
    ahead.prefix = ["env", f"LD_PRELOAD={shim} {card}", "CLOCK_SHIFT_S=3600", f"TIEBREAK_CARD_LATE={late}"]
    ahead.start()
    wait_for(40, "no alarm for a clock that is ahead", lambda: ("clock", ahead.name) in alarms())
    # Its card takes its time, for a while.
    with open(late, "w"):
        wait_for(40, "no alarm for a card that is slow", lambda: ("disk-slow", ahead.name) in alarms()
                 or first.ctl("site", "set", f"{PREFIX}0002", "-l", f"at={time.monotonic()}") and False)
    os.unlink(late)
    # Another leader raises nothing again, and sees the end.
    raised = raised_sites(first)
    leader = cluster.leader()
    leader.stop()
    rest = next(board for board in cluster.boards.values() if board is not leader)
    wait_for(20, "no other leader", lambda: cluster.leader(through=rest) is not leader)
    rest.ctl("site", "set", f"{PREFIX}0001", "-l", "zone-")
    wait_for(60, "the alarm does not end", lambda: zone not in alarms(rest))
    again = raised_sites(rest)
    if len(again) != len(raised):
        raise Failure(f"the new leader raised {len(again) - len(raised)} alarms again")
    if not [e for e in rest.json("event", "list", "-n", "50")["items"] if e["type"] == "alarm.cleared"]:
        raise Failure("the end of the alarm is no event")
    nodes.end()


class Clock:
    """The clock of a board that can be set while it runs."""

    def __init__(self, cluster, board):
        shim = os.path.join(cluster.dir, "shim.so")
        if not os.path.exists(shim):
            subprocess.run(["cc", "-shared", "-fPIC", "-xc", "-o", shim, "-"], input=SHIM.encode(), check=True)
        self.path = os.path.join(board.dir, "shift")
        board.prefix = ["env", f"LD_PRELOAD={shim}", f"CLOCK_SHIFT_FILE={self.path}"]

    def shift(self, seconds):
        with open(self.path + ".new", "w") as file:
            file.write(str(seconds))
        os.rename(self.path + ".new", self.path)


def valid_now(path):
    """Of a certificate: it begins before now."""
    done = subprocess.run(["openssl", "x509", "-in", path, "-noout", "-startdate"], capture_output=True, text=True,
                          check=True)
    return ssl.cert_time_to_seconds(done.stdout.strip().partition("=")[2]) < time.time()


def nothing_is_of_tomorrow(cluster):
    """Whatever the clock of one board said: no certificate, no event and no token is of the future."""
    boards = [board for board in cluster.boards.values() if board.running()]
    for board in boards:
        if not valid_now(os.path.join(board.data, "node.crt")):
            raise Failure(f"the certificate of {board.name} is of the future")
    late = [event for event in boards[0].json("event", "list", "-n", "200")["items"]
            if int(event["timeMs"]) > (time.time() + 600) * 1000]
    if late:
        raise Failure(f"an event is of the future: {late[0]}")


def one_clock_leaps(cluster):
    clocks = {number: Clock(cluster, cluster.board(number)) for number in (1, 2, 3)}
    cluster.make(3)
    boards = list(cluster.boards.values())
    leader = cluster.leader()
    follower = next(board for board in boards if board is not leader)
    files = client_files(follower, "ann")
    token = follower.ctl("token", "create", "--role", "viewer", "--ttl", "1h", "-o", "name").stdout.strip()
    serials = {board.name: serial(board) for board in boards}

    # An hour: the leader is named, not the others.
    clocks[leader.number].shift(3600)
    wait_for(40, "no alarm for a leader whose clock is ahead",
             lambda: [row["subject"] for row in follower.json("cluster", "status").get("alarms", [])
                      if row["kind"] == "clock"] == [leader.name])
    follower.ctl("site", "create", "hour")
    nothing_is_of_tomorrow(cluster)
    clocks[leader.number].shift(0)

    # Three years, for seconds: of the leader, then of another board, which signs meanwhile.
    for board in (leader, follower):
        clocks[board.number].shift(3 * 365 * 86400)
        for number in range(4):
            board.ctl("site", "create", f"leap-{board.name}-{number}", check=False)
            time.sleep(1)
        made = board.ctl("cert", "create", f"of-{board.name}", "--role", "viewer", "--out",
                         os.path.join(cluster.dir, "clients"), check=False)
        clocks[board.number].shift(0)
        if made.returncode == 0 and not valid_now(os.path.join(cluster.dir, "clients", f"of-{board.name}.crt")):
            raise Failure(f"what {board.name} signed meanwhile is of the future")
        time.sleep(3)
        nothing_is_of_tomorrow(cluster)
        wait_for(20, "the boards do not find each other",
                 lambda: (follower.status() or {}).get("nodesReachable") == 3)
    if {board.name: serial(board) for board in boards} != serials:
        raise Failure("certificates were renewed")
    for who in (files, ["--token", token]):
        for board in boards:
            done = ctl_remote(board, *who, "site", "list")
            if done.returncode != 0:
                raise Failure(f"{board.name} is of no use to those whose clock is right: {done.stderr}")
    cluster.join(4)
    for board in cluster.boards.values():
        board.stop()
    for board in cluster.boards.values():
        board.start()
    wait_for(30, "the boards do not find each other after a restart",
             lambda: (follower.status() or {}).get("nodesReachable") == 4)
    nothing_is_of_tomorrow(cluster)


def a_lone_clock_leaps(cluster):
    """Nobody knows better than the only board: the log is ahead afterwards, and what is made then is of use to those
    whose clock is right."""
    only = cluster.board(1)
    clock = Clock(cluster, only)
    cluster.make(1)
    clock.shift(3 * 365 * 86400)
    wait_for(20, "the certificate is not renewed", lambda: not valid_now(os.path.join(only.data, "node.crt")))
    only.ctl("site", "create", "leap")
    clock.shift(0)
    wait_for(20, "the board keeps a certificate of the future", lambda: valid_now(os.path.join(only.data, "node.crt")))
    files = client_files(only, "ann")
    wait_for(10, "the board shows a certificate of the future", lambda: shown_serial(only) == serial(only))
    token = only.ctl("token", "create", "--role", "viewer", "-o", "name").stdout.strip()
    for who in (files, ["--token", token]):
        done = ctl_remote(only, *who, "site", "list")
        if done.returncode != 0:
            raise Failure(f"the board is of no use to those whose clock is right: {done.stderr}")
    cluster.join(2)


if __name__ == "__main__":
    main([replace_a_dead_board, backup_and_restore, recover_from_a_lost_majority, drain_the_leader,
          drain_spares_who_needs_the_vote, certificates_renew_themselves, rotate_the_ca,
          revocation_ends_sessions, rolling_upgrade, tenants_keep_to_themselves,
          alarms_before_the_day, one_clock_leaps, a_lone_clock_leaps],
         long=[recover_from_a_lost_majority, drain_spares_who_needs_the_vote, certificates_renew_themselves,
               rotate_the_ca, rolling_upgrade, alarms_before_the_day, one_clock_leaps])
