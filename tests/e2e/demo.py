#!/usr/bin/env python3
"""The witness at work, in words: three boards, a thousand sites, a split, a killed leader.
`demo.py BIN [--sites N]`. Ends with a status other than 0 if anything that it says is not so."""

import argparse
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from boards import Cluster, Failure, die_with_parent, wait_for

LOAD = "qnet_load"


def heading(number, text):
    print(f"\n{number}. {text}", flush=True)


def show(text):
    for line in text.rstrip().splitlines():
        print(f"   | {line}", flush=True)


def typed(board, *words):
    """Runs witnessctl as a person would and shows what it prints."""
    print(f"   $ witnessctl {' '.join(words)}     (on {board.name})", flush=True)
    done = board.ctl(*words)
    show(done.stdout)
    return done


class SiteNodes:
    """Simulated corosync-qdevice nodes: two for each site."""

    def __init__(self, cluster, sites, tls):
        addresses = ",".join(board.sites_address for board in cluster.boards.values())
        command = [os.path.join(cluster.bin, LOAD), "--address", addresses, "--sites", str(sites),
                   "--prefix", "office-", "--spread", "--interactive", "--heartbeat", "2000"] + tls
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        bufsize=1, preexec_fn=die_with_parent)

    def tell(self, command):
        """Gives a command; the lines of its answer."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.strip() == "ok":
                return lines
            lines.append(line.rstrip())
        raise Failure("the simulated nodes ended")

    def settle(self, seconds):
        lines = self.tell(f"wait {seconds}")
        show("\n".join(lines))
        if not lines[0].startswith("settled"):
            raise Failure("some sites have no decision")

    def numbers(self):
        line = next(line for line in self.tell("status") if line.startswith("status: "))
        return {part.rsplit(" ", 1)[0]: int(part.rsplit(" ", 1)[1])
                for part in line.removeprefix("status: ").split(", ")}

    def end(self):
        self.process.stdin.close()
        self.process.wait(10)


def claim(holds, text):
    if not holds:
        raise Failure(f"not so: {text}")
    print(f"   => {text}", flush=True)


def demo(cluster, sites):
    print("Tiebreak: a witness of three small boards for two-node sites.\n"
          "Each board here is a real witnessd with its own address on this machine.")

    heading(1, "One board becomes a cluster of its own; two more join it with a token.")
    first = cluster.board(1).start()
    typed(first, "cluster", "init", "--name", "demo")
    for number in (2, 3):
        token = cluster.token(first)
        print("   $ witnessctl token create --role node --ttl 1h     (on board1)", flush=True)
        board = cluster.board(number).start()
        print(f"   $ witnessctl cluster join {first.address} --token {token[:9]}...     (on {board.name})",
              flush=True)
        show(board.ctl("cluster", "join", first.address, "--token", token).stdout)
    typed(first, "node", "list")

    heading(2, f"The operator imports {sites} sites from one file, on any board.")
    path = os.path.join(cluster.dir, "sites.csv")
    with open(path, "w") as file:
        file.write("name,label.region,algorithm\n")
        for number in range(1, sites + 1):
            file.write(f"office-{number:04d},{('emea', 'amer', 'apac')[number % 3]},ffsplit\n")
    print("   $ witnessctl site import sites.csv     (on board2)", flush=True)
    done = subprocess.run([os.path.join(cluster.bin, "witnessctl"), "--socket", cluster.board(2).socket,
                           "site", "import", path], stdout=subprocess.PIPE, text=True, timeout=120)
    show(done.stdout)
    total = cluster.board(3).json("site", "list", "-l", "region=emea")
    claim(done.returncode == 0 and len(total["items"]) == len(range(3, sites + 1, 3)),
          "board3 lists every site of region emea that board2 imported")

    heading(3, f"{2 * sites} site nodes attach (simulated corosync-qdevice clients, spread over the boards, TLS "
               "with a client certificate).")
    out = os.path.join(cluster.dir, "qnet")
    os.makedirs(out)
    cluster.board(1).ctl("site", "enroll", "office-0001", "--out", out)
    nodes = SiteNodes(cluster, sites, certificates(cluster, out))
    nodes.tell("attach")
    nodes.settle(120)
    numbers = nodes.numbers()
    claim(numbers["whole"] == sites, f"all {sites} sites have both nodes attached and hold the vote")
    typed(first, "cluster", "status")

    heading(4, "In a third of the sites the link between the two nodes breaks. Which side may go on?")
    show("\n".join(nodes.tell("split 33")))
    nodes.settle(60)
    split = nodes.numbers()
    claim(split["one-side"] > 0 and split["both-sides"] == 0 and split["no-side"] == 0,
          f"{split['one-side']} sites are split, and in each exactly one side holds the vote")

    heading(5, "More sites split, and in the middle of it the leader is killed with -9.")
    leader = cluster.leader()
    show("\n".join(nodes.tell("split 50")))
    leader.kill()
    killed = time.monotonic()
    print(f"   {leader.name}, the leader, is dead; its clients move to the other boards", flush=True)
    other = next(board for board in cluster.boards.values() if board.running())
    fresh = wait_for(20, "no new leader", lambda: new_leader(other, leader))
    print(f"   {fresh} leads, {time.monotonic() - killed:.1f} s later", flush=True)
    nodes.settle(90)
    after = nodes.numbers()
    claim(after["one-side"] > split["one-side"] and after["no-side"] == 0 and after["both-sides"] == 0,
          f"{after['one-side']} sites are split, and in each exactly one side holds the vote")
    claim(after["violations"] == 0, "at no moment did two sides of a site hold the vote")

    heading(6, "The dead board comes back, the sites heal.")
    leader.start()
    show("\n".join(nodes.tell("heal")))
    nodes.settle(90)
    healed = nodes.numbers()
    claim(healed["whole"] == sites and healed["violations"] == 0, f"all {sites} sites are whole again")
    wait_for(30, "the cluster is not whole again", lambda: (other.status() or {}).get("state") == "ok")
    typed(other, "cluster", "status")

    heading(7, "Everything ends in order.")
    nodes.end()
    claim(nodes.process.returncode == 0, "the simulated nodes saw no broken promise")
    for board in cluster.boards.values():
        claim(board.stop() == 0, f"{board.name} ended in order")


def certificates(cluster, out):
    """What the simulated nodes need: the witness's CA, and a certificate for each site, signed by the
    cluster through the same API that `site enroll` uses."""
    directory = os.path.join(cluster.dir, "certificates")
    os.makedirs(directory)
    done = subprocess.run([sys.executable, os.path.join(os.path.dirname(__file__), "enroll_all.py"),
                           cluster.board(1).socket, directory], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"enrolment: {done.stderr.strip()}")
    return ["--tls", "--ca", os.path.join(out, "qnetd-cacert.crt"), "--cert-dir", directory]


def new_leader(board, old):
    name = (board.status() or {}).get("leaderName")
    return name if name and name != old.name else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("--sites", type=int, default=1000)
    given = parser.parse_args()
    began = time.monotonic()
    with Cluster(given.bin) as cluster:
        demo(cluster, given.sites)
        where = cluster.dir
    if os.path.exists(where):
        sys.exit(f"{where} was left behind")
    print(f"\nAll of this was so. ({time.monotonic() - began:.0f} s; nothing is left behind)")
