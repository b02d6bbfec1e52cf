#!/usr/bin/env python3
"""The lease of a site held by real agents on three real boards.

    test_agent.py BIN [NAME...]"""

import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from agents import Relay, holder, site_of_agents  # noqa: E402
from boards import Failure, main, wait_for  # noqa: E402


def expect(truth, what):
    if not truth:
        raise Failure(what)


def lease(board, site="shop"):
    return board.json("site", "show", site)["status"]["lease"]


def test_one_holds(cluster):
    """One of two gets it; given back it goes to the other, with a greater epoch; the API says who."""
    cluster.make(3)
    a, b = site_of_agents(cluster)
    a.start(), b.start()
    first = holder([a, b])
    other = b if first is a else a
    expect(not other.holds(), "both hold the lease")
    epoch = first.epoch()
    shown = lease(cluster.boards[2])
    expect(shown["holder"] == first.number and int(shown["epoch"]) == epoch,
           f"the API shows {shown}, but node {first.number} has epoch {epoch}")
    expect(int(shown["untilMs"]) > time.time() * 1000, f"the API shows a lease that is over: {shown}")
    first.command("release")
    wait_for(10, "the lease does not go to the other node", other.holds)
    expect(not first.holds(), "it was given back and is still held")
    expect(other.epoch() > epoch, "the epoch did not grow")
    lines = first.hooked(3)
    expect([line[:2] for line in lines] == [("loss", 0), ("gain", epoch), ("loss", epoch)],
           f"the hooks ran as {lines}")
    expect(lines[2][2] <= other.hooked(2)[1][2], "the other gained before the first had stopped")
    events = [event["type"] for event in cluster.boards[1].json("event", "list")["items"]]
    expect("lease.granted" in events and "lease.released" in events, f"events are {set(events)}")
    with open(f"/proc/{first.process.pid}/status") as status:
        memory = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    # The promise of docs/decisions/0008-agent.md; sanitizers and emulators have a size of their own.
    expect(memory < 4096 or os.environ.get("AGENT_SIZE") == "any", f"the agent has {memory} kB resident")
    # Whose certificate ends is said of each node (cluster/alarm.h).
    nodes = [row.get("node") for row in cluster.boards[3].json("cert", "list")["items"] if row["kind"] == "agent"]
    expect(sorted(nodes) == [1, 2], f"the certificates are of nodes {nodes}")
    text = cluster.boards[3].ctl("site", "show", "shop").stdout
    expect(f"held by node {other.number} (epoch {other.epoch()})" in text, f"site show says: {text}")
    # In order at the end: it is given back at once, not left to time.
    first.command("acquire")
    expect(other.stop() == 0, "the agent ended with an error")
    wait_for(10, "nobody takes over from an agent that ended in order", first.holds)
    expect(other.hook_lines()[-1][0] == "loss", "on-loss did not run at the end")


def test_holder_killed(cluster):
    """The other gets it, not before the killed one's own time is over; on its return it stops first."""
    cluster.make(3)
    a, b = site_of_agents(cluster)
    a.start(), b.start()
    first = holder([a, b])
    other = b if first is a else a
    until = int(first.status()["until_boot_ms"])
    first.kill()
    expect(first.holds(), "a dead agent's lease is over before its time")  # by the file it left
    wait_for(20, "nobody takes over", other.holds)
    gained = other.hooked(2)[1]
    expect(gained[0] == "gain" and gained[2] + 10 >= until,
           f"the other gained at {gained[2]}, the killed one had it until {until} at least")
    expect(not first.holds(), "the dead agent's status says it holds")
    first.start()
    expect(first.hooked(3)[2][:2] == ("loss", 0), "on-loss did not run at the start")
    time.sleep(1)
    expect(not first.holds() and other.holds(), "the one that came back took it")


def test_restarted(cluster):
    """Killed and started again at once, with a service that lives on: the other gets it only when on-loss has ended.
    Where on-loss fails, that is when the lease is over by time, after the last resort."""
    cluster.make(1)
    a, b = site_of_agents(cluster, lease="6s", **{"stop-time": "2500ms"})
    for agent in (a, b):
        agent.configure(**{"on-loss": f"sleep 1; {agent.settings['on-loss']}"})
    a.start(), b.start()
    first = holder([a, b])
    other = b if first is a else a
    first.kill()
    until = int(first.status()["until_boot_ms"])
    first.configure(acquire="off")
    first.start()
    wait_for(5, "it does not know of the lease that it had", lambda: first.status()["state"] == "stopping", every=0.05)
    wait_for(20, "nobody takes over", other.holds)
    stopped, gained = first.hooked(3)[2], other.hooked(2)[1]
    expect(stopped[:2] == ("loss", 0) and stopped[2] <= gained[2] and gained[2] + 10 >= until,
           f"the restarted one had stopped at {stopped}, with a lease until {until}, and the other gained at {gained}")
    # The same with an on-loss that fails; then one more start, in the middle of that.
    first.command("acquire")
    other.configure(**{"on-loss": "exit 1", "on-loss-failed": other.settings["on-gain"], "acquire": "off"})
    other.kill()
    until = int(other.status()["until_boot_ms"])
    other.start()
    wait_for(5, "the last resort did not run", lambda: other.hook_lines()[-1][0] == "loss-failed")
    expect(other.status()["connected"] == "no", "the boards hear of it before its time is over")
    other.kill()
    other.start()
    wait_for(20, "nobody takes over", first.holds)
    expect(first.hook_lines()[-1][2] + 10 >= until, "the other gained before the time of the killed one was over")
    wait_for(20, "it does not come back", lambda: other.status()["connected"] == "yes")
    expect([line[0] for line in other.hook_lines()[2:]] == ["loss-failed", "loss-failed"],
           f"the hooks ran as {other.hook_lines()}")
    # What the service runs after an end: where it stopped all, the next start has nothing to fear.
    first.kill()
    expect(first.command("loss").returncode == 0 and first.status() is None, "loss leaves the file behind")


def test_leader_killed(cluster):
    """The lease is kept: no hook runs, the epoch stays."""
    cluster.make(3)
    a, b = site_of_agents(cluster, lease="8s", **{"stop-time": "1s"})
    a.start(), b.start()
    first = holder([a, b])
    epoch = first.epoch()
    before = first.hooked(2)
    leader = cluster.leader()
    leader.kill()
    end = time.monotonic() + 12
    while time.monotonic() < end:
        expect(first.holds(), "the lease was lost with the leader")
        time.sleep(0.2)
    expect(first.epoch() == epoch and first.hook_lines() == before, "it was lost and gained again")
    survivor = cluster.any()
    wait_for(20, "the new leader does not show the lease",
             lambda: lease(survivor).get("holder") == first.number)


def test_cut_off(cluster):
    """A holder without a network stops in time; only then the other gets it."""
    cluster.make(3)
    a, b = site_of_agents(cluster)
    a.start(), b.start()
    first = holder([a, b])
    other = b if first is a else a
    first.cut()
    wait_for(20, "the one that was cut off still holds", lambda: not first.holds())
    wait_for(20, "nobody takes over", other.holds)
    stopped, gained = first.hooked(3)[2], other.hooked(2)[1]
    expect(stopped[0] == "loss" and stopped[2] <= gained[2],
           f"stopped {stopped}, the other gained {gained}")
    first.cut(False)
    wait_for(20, "it does not come back", lambda: first.status()["connected"] == "yes")
    expect(not first.holds() and other.holds(), "the one that came back took it")


def test_frozen(cluster):
    """An agent that was stopped for longer than its lease does not believe that it holds it."""
    cluster.make(3)
    a, b = site_of_agents(cluster)
    a.start(), b.start()
    first = holder([a, b])
    other = b if first is a else a
    first.process.send_signal(signal.SIGSTOP)
    wait_for(20, "nobody takes over from a frozen agent", other.holds)
    expect(not first.holds(), "the frozen one's file says that it holds")
    first.process.send_signal(signal.SIGCONT)
    wait_for(5, "on-loss did not run", lambda: first.hook_lines()[-1][0] == "loss")
    expect(not first.holds() and other.holds(), "the frozen one goes on")


def test_drained(cluster):
    """The agents of a drained board go to others; the holder keeps its lease meanwhile."""
    cluster.make(3)
    a, b = site_of_agents(cluster)
    a.start(), b.start()
    first = holder([a, b])
    epoch, before = first.epoch(), first.hooked(2)
    nodes = {node["nodeId"]: int(node["board"]) for node in
             cluster.any().json("site", "show", "shop")["status"]["nodes"]}
    drained = cluster.boards[nodes[first.number]]
    other = next(board for board in cluster.boards.values() if board is not drained)
    other.ctl("node", "drain", drained.name)

    def moved():
        expect(first.holds(), "the lease was lost")
        status = other.json("site", "show", "shop")["status"]
        return len(status["nodes"]) == 2 and all(int(n["board"]) != drained.number for n in status["nodes"])

    wait_for(30, "the agents stay at the drained board", moved)
    expect(first.epoch() == epoch and first.hook_lines() == before, "it was lost and gained again")
    # It takes no new ones either.
    last = b if first is a else a
    last.stop()
    last.relays = [relay for relay in last.relays if relay.target[0] == drained.host]
    last.configure()
    last.start()
    wait_for(10, "it was not sent away", lambda: "closed the connection" in last.status()["why"])
    expect(last.status()["connected"] == "no", "the drained board takes an agent")
    with open(drained.log) as log:
        expect(any("agent-refused" in line and "drained" in line for line in log),
               "the drained board does not say why")


def test_ca_rotated(cluster):
    """The cluster changes its CA: agents go on with the old one until they are renewed, the lease is kept."""
    cluster.make(1)
    board = cluster.boards[1]
    a, b = site_of_agents(cluster)
    a.start(), b.start()
    first = holder([a, b])
    other = b if first is a else a
    epoch, before = first.epoch(), first.hooked(2)
    # Only its own node, and only as long as its certificate holds.
    with open(os.path.join(other.state, "agent.key")) as key:
        old = key.read()
    other.command("renew")
    with open(os.path.join(other.state, "agent.key")) as key:
        expect(key.read() != old, "the key is the old one")
    wait_for(10, "it does not come back with its new certificate", lambda: other.status()["connected"] == "yes")
    # As if that renewal had ended between its certificate and its key: the one that fits is found at the next start.
    path = os.path.join(other.state, "agent.key")
    os.rename(path, path + ".next")
    with open(path, "w") as key:
        key.write(old)
    board.ctl("cluster", "rotate-ca", "--yes")
    wait_for(60, "the new CA does not sign", lambda: "rotate-ca --finish" in board.ctl("status").stdout)
    time.sleep(5)  # by now the board most likely has its certificate from the new CA
    # A new connection of a node that knows the old CA only.
    other.stop(), other.start()
    wait_for(10, "the old CA is not led to the new one", lambda: other.status()["connected"] == "yes")
    expect(not os.path.exists(path + ".next"), "the key of the renewal is not in its place")
    for agent in (a, b):
        agent.command("renew")
    wait_for(60, "the rotation does not end", lambda: board.ctl(
        "cluster", "rotate-ca", "--finish", "--yes", check=False).returncode == 0)
    time.sleep(2)
    for agent in (a, b):
        wait_for(10, "a renewed agent is not let in", lambda agent=agent: agent.status()["connected"] == "yes")
    expect(first.holds() and first.epoch() == epoch and first.hook_lines() == before, "the lease was lost")


def test_renews_itself(cluster):
    """At two thirds of its certificate's life an agent has a new one, and the lease is kept."""
    cluster.make(1)
    cluster.boards[1].ctl("cluster", "set", "--certificate-life", "60s")
    (a,) = site_of_agents(cluster, count=1)
    with open(os.path.join(a.state, "agent.crt")) as file:
        old = file.read()
    a.start()
    holder([a])
    epoch, before = a.epoch(), a.hooked(2)

    def renewed():
        with open(os.path.join(a.state, "agent.crt")) as file:
            return file.read() != old
    wait_for(60, "the certificate is not renewed", renewed, every=0.5)
    wait_for(10, "it does not come back", lambda: a.status()["connected"] == "yes")
    expect(a.holds() and a.epoch() == epoch and a.hook_lines() == before, "the lease was lost")


def test_stranger(cluster):
    """A board of another cluster is not spoken to, and gets no certificate renewed."""
    cluster.make(1)
    (a,) = site_of_agents(cluster, count=1)
    other = cluster.board(9).start()
    other.ctl("cluster", "init", "--name", "lab")  # of the same name, as if to deceive
    a.relays = [Relay("127.0.0.1", (other.host, 7443))]
    a.configure()
    a.start()
    wait_for(10, "the stranger is not refused", lambda: "not signed by this cluster's CA" in a.status()["why"])
    expect(a.status()["connected"] == "no", "it is connected to a stranger")
    done = a.command("renew", check=False)
    expect(done.returncode == 1 and "not signed by this cluster's CA" in done.stderr,
           f"renew ended with {done.returncode}: {done.stdout}{done.stderr}")
    with open(other.log) as log:
        expect("agent-" not in log.read(), "the stranger has heard of the agent")
    a.stop()
    # One that would take anybody, with a chain that looks like a bridge.
    name = ["-subj", "/CN=Tiebreak CA lab", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for command in (["req", "-x509", *name, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"],
                    ["req", *name, "-keyout", "leaf.key", "-out", "leaf.csr"],
                    ["x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                     "-out", "leaf.pem", "-days", "2"]):
        subprocess.run(["openssl", *command], cwd=cluster.dir, check=True, capture_output=True)
    relay = Relay("127.0.0.1", ("127.0.0.1", 1))
    port = relay.listener.getsockname()[1]
    relay.over = True
    wait_for(5, "the relay's port stays", lambda: relay.listener.fileno() < 0)
    server = subprocess.Popen(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", "leaf.pem", "-key",
                               "leaf.key", "-cert_chain", "ca.pem", "-alpn", "tiebreak-agent/1", "-quiet"],
                              cwd=cluster.dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    cluster.cleanups.append(lambda: (server.kill(), server.wait()))
    a.relays = [relay]
    a.configure()
    a.start()
    wait_for(10, "the stranger is not refused", lambda: "not signed by this cluster's CA" in a.status()["why"])
    a.stop()
    server.kill()
    expect(server.communicate(timeout=10)[0] == b"", "the stranger was told something")


def test_majority_lost(cluster):
    """One board of three alone gives nobody a lease and renews none; with two again all goes on."""
    cluster.make(3)
    a, b = site_of_agents(cluster)
    for agent in (a, b):  # attached to the board that will be alone
        agent.relays = agent.relays[2:]
        agent.configure()
        agent.start()
    first = holder([a, b])
    epoch = first.epoch()
    lost = [cluster.boards[1], cluster.boards[2]]
    for board in lost:
        board.kill()
    wait_for(20, "the lease outlives the majority", lambda: not first.holds())
    expect(first.hooked(3)[2][:2] == ("loss", epoch), "on-loss did not run")
    time.sleep(2)
    expect(not a.holds() and not b.holds(), "a board alone gave the lease")
    for board in lost:
        board.start()
    expect(holder([a, b], 40).epoch() > epoch, "the epoch did not grow")


def test_library(cluster):
    """A program with the library alone gets the lease and gives it back; the agent then has it at once."""
    cluster.make(1)
    a, b = site_of_agents(cluster)
    done = subprocess.run([os.path.join(cluster.bin, "agent_library"), cluster.boards[1].address, "1", a.state],
                          capture_output=True, text=True, timeout=30)
    expect(done.returncode == 0 and done.stdout.split()[:4] == ["gained", "1", "lost", "1"],
           f"it ended with {done.returncode}: {done.stdout}{done.stderr}")
    b.start()
    wait_for(10, "the lease was not given back", b.holds)


def test_policies(cluster):
    """Preferred, manual, highest generation first."""
    cluster.make(1)
    board = cluster.boards[1]
    a, b = site_of_agents(cluster, policy=("--lease", "preferred:2"))
    a.start()
    holder([a])  # after it has waited for node 2
    b.start()
    wait_for(20, "the preferred node does not get it", b.holds)
    expect(not a.holds(), "both hold it")
    board.ctl("site", "set", "shop", "--lease", "manual:1")
    wait_for(10, "the node that was named does not get it", a.holds)
    a.command("release")
    wait_for(10, "it was not given back", lambda: not a.holds())
    time.sleep(1.5)
    expect(not b.holds(), "another node than the one named took it")
    a.command("generation", "7")
    b.command("generation", "9")
    board.ctl("site", "set", "shop", "--lease", "generation")
    a.command("acquire")
    wait_for(15, "the highest generation does not get it", b.holds)
    b.command("generation", "11")  # it writes on
    wait_for(5, "the new generation is not shown", lambda: any(
        node.get("generation") == "11" for node in board.json("site", "show", "shop")["status"]["nodes"]))
    b.command("release")
    time.sleep(2)
    expect(not a.holds(), "older data than the last holder's became the primary")
    reason = board.json("site", "show", "shop")["status"]["reason"]
    expect("older than generation 11" in reason, f"the reason is: {reason}")
    a.command("generation", "11")
    wait_for(10, "with the same generation it does not get it", a.holds)


def test_hooks(cluster):
    """on-gain that fails; on-loss that hangs is killed before the end, then on-loss-failed runs."""
    cluster.make(1)
    board = cluster.boards[1]
    a, b = site_of_agents(cluster)
    note = a.settings["on-loss"]
    a.configure(**{"on-loss": f"{note}; case $WITNESS_EPOCH in 0) ;; *) sleep 60 ;; esac",
                   "on-loss-failed": note, "acquire": "on"})
    b.configure(acquire="off")
    a.start(), b.start()
    wait_for(10, "no lease", a.holds)
    until = int(a.status()["until_boot_ms"])
    b.command("acquire")
    a.command("release")
    wait_for(15, "nobody takes over", b.holds)
    lines = a.hooked(4)
    expect([line[0] for line in lines] == ["loss", "gain", "loss", "loss-failed"], f"hooks ran as {lines}")
    expect(lines[3][2] < until + 3000, "on-loss-failed came after the lease")
    expect("on-loss failed" in a.status()["problem"], "the status does not say that on-loss failed")
    expect(b.hooked(2)[1][2] + 10 >= until, "a hook that failed has hurried the handover")
    # A gain hook that fails gives the lease back.
    b.command("release")
    a.stop()
    b.stop()
    a.configure(**{"on-gain": "exit 1", "on-loss": note})
    os.remove(a.hooks)
    a.start()
    wait_for(10, "on-gain did not fail", lambda: "on-gain" in a.status()["problem"])
    wait_for(10, "the lease was not given back", lambda: not a.holds())
    expect(a.status()["wanted"] == "no", "it asks again at once")
    del board


def test_revoked(cluster):
    """A revoked certificate ends the session and the lease."""
    cluster.make(1)
    board = cluster.boards[1]
    (a,) = site_of_agents(cluster, count=1)
    a.start()
    wait_for(15, "no lease", a.holds)
    serials = [c["serial"] for c in board.json("cert", "list")["items"] if c["kind"] == "agent"]
    expect(len(serials) == 1, f"certificates of agents: {serials}")
    board.ctl("cert", "revoke", serials[0], "--yes")
    wait_for(10, "it is still connected", lambda: a.status()["connected"] == "no")
    wait_for(10, "it still holds", lambda: not a.holds())


def test_bad_input(cluster):
    """Each wrong thing is refused with one clear sentence."""
    cluster.make(1)
    board = cluster.boards[1]
    (a,) = site_of_agents(cluster, count=1)
    token = board.json("site", "enroll", "shop", "--agent")["secret"]
    viewer = board.json("token", "create", "--role", "viewer")["secret"]

    def refused(words, *arguments, code=1):
        done = a.command(*arguments, check=False)
        expect(done.returncode == code and words in done.stderr and done.stderr.count("\n") == 1,
               f"{arguments}: ended with {done.returncode}: {done.stderr}")

    enroll = ["--set", f"state-dir={a.state}", "enroll", "--site", "shop", "--node", "1"]
    refused("--board, --site, --node and --token", *enroll, code=2)
    refused("begins with tb1.", *enroll, "--board", board.address, "--token", "tb1.nonsense")
    refused("Connection refused", *enroll, "--board", f"{board.host}:1", "--token", token)
    refused("not a board of the cluster", *enroll, "--board", board.address, "--token",
            token[:-1] + ("0" if token[-1] != "0" else "1"))
    refused("needs the role operator", *enroll, "--board", board.address, "--token", viewer)
    refused("there is no site", "--set", f"state-dir={a.state}", "enroll", "--site", "nowhere", "--node", "1",
            "--board", board.address, "--token", board.json("token", "create", "--role", "operator")["secret"])
    # A tenant enrols the agents of its own sites, and of no other.
    tenant = board.json("token", "create", "--role", "operator", "--tenant", "red")["secret"]
    board.ctl("site", "create", "red-1", "-l", "tenant=red")
    refused("there is no site", *enroll, "--board", board.address, "--token", tenant)
    own = ["--config", os.path.join(cluster.dir, "red.conf"), "--set", f"state-dir={cluster.dir}/red"]
    a.command(*own, "enroll", "--site", "red-1", "--node", "1", "--board", board.address, "--token", tenant)
    refused("did you mean \"status\"", "statuss", code=2)
    refused("no agent answers", "status", code=3)
    for line, words in [("lease = 5", "\"5\" is not a time"), ("lease = 1s", "is not a time from 3000ms"),
                        ("boards = :1", "is no address of a board"), ("peers = 2@", "is no address of a node"),
                        ("peers = 1", "this node itself"), ("nodes = 3", "did you mean \"node\""),
                        ("stop-time = 3s", "less than half of lease"), ("site = a b", "is no site's name"),
                        ("on-loss-failed = true", "set on-loss")]:
        a.configure()
        with open(a.config) as file:
            kept = [old for old in file if old.split(" =")[0] not in (line.split(" =")[0], "on-loss")]
        with open(a.config, "w") as file:
            file.write("".join(kept) + line + "\n")
        refused(words, "--check-config")
    a.configure()
    a.start()
    refused("generation needs a whole number", "generation", "x", code=2)
    second = a.command("run", check=False)
    expect(second.returncode == 1 and "another witness-agent runs there" in second.stderr, second.stderr)
    # A node that names itself otherwise than its certificate.
    a.stop()
    with open(a.config) as file:
        text = file.read().replace("node = 1", "node = 2")
    with open(a.config, "w") as file:
        file.write(text)
    a.start()
    wait_for(10, "a foreign node id is not refused",
             lambda: "not the one of its certificate" in a.status()["why"])


if __name__ == "__main__":
    main([test_one_holds, test_holder_killed, test_restarted, test_leader_killed, test_cut_off, test_frozen,
          test_drained, test_ca_rotated,
          test_stranger, test_majority_lost, test_library, test_policies,
          test_hooks, test_revoked, test_renews_itself, test_bad_input], long=[test_renews_itself])
