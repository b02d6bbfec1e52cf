#!/usr/bin/env python3
"""Sites of real corosync 3 and corosync-qdevice nodes, TLS with client certificates, on three boards.
`test_corosync.py BIN [NAME...]`; `test_corosync.py --qnetd` runs what can be compared with Debian's
corosync-qnetd in the place of the boards, and fails if the pulled plug shows no two sides there:
that is how the checker was seen to find them.

After every scenario quorum_log.py judges from corosync's own logs. Times are printed, never judged. About four minutes."""

import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
import quorum_log
from boards import Cluster, Failure, main, wait_for
from lab import PEERS, PORT, Lab, run

HEARTBEAT = 4  # seconds, by the lab's device timeout
LIMIT = 60  # seconds; generous, for a machine with other things to do


class TwoSides(Failure):
    """What must never be."""


# --- the witness: three boards, or corosync-qnetd ---

class Boards:
    def __init__(self, cluster, lab):
        self.cluster = cluster
        self.lab = lab
        for number, space in lab.boards.items():
            board = cluster.board(number, f"{PEERS}.{10 + number}", space.network)
            board.sites_address = f"{lab.board_address(number)}:{PORT}"
        cluster.make(len(lab.boards))

    def board(self, number):
        return self.cluster.boards[number]

    def at(self, address):
        """The board that a node is connected to."""
        return next(board for board in self.cluster.boards.values()
                    if board.sites_address == f"{address}:{PORT}")

    def addresses(self, first):
        """All of them, another one first for every node."""
        numbers = sorted(self.lab.boards)
        turn = (first - 1) % len(numbers)
        return [self.lab.board_address(number) for number in numbers[turn:] + numbers[:turn]]

    def enroll(self, site, nodes):
        """As after `witnessctl site enroll`: its two files on every node."""
        out = os.path.join(self.lab.dir, site)
        self.board(2).ctl("site", "create", site, "--tls", "required")
        self.board(2).ctl("site", "enroll", site, "--out", out)
        for node in nodes:
            node.import_certificates(f"{out}/qnetd-cacert.crt", f"{out}/qdevice-net-node.p12")

    def enroll_by_request(self, site, nodes):
        """With our corosync-qnetd-certutil in the place of Debian's; it makes the site, too."""
        nssdb = os.path.join(self.lab.dir, "nssdb")
        certutil = [os.path.join(self.cluster.bin, "corosync-qnetd-certutil")]
        there = {"TIEBREAK_SOCKET": self.board(3).socket, "TIEBREAK_QNETD_NSSDB": nssdb}

        def sign(request):
            run([*certutil, "-s", "-c", request, "-n", site], **there)
            self.board(3).ctl("site", "set", site, "--tls", "required")
            return os.path.join(nssdb, f"cluster-{site}.crt")
        run([*certutil, "-i"], **there)
        enroll_by_request(site, nodes, os.path.join(nssdb, "qnetd-cacert.crt"), sign)

    def check_attached(self, site, nodes):
        """Every node is known to be here with TLS and the site's certificate."""
        def all_here():
            shown = self.cluster.any().json("site", "show", site)
            here = shown.get("status", {}).get("nodes", [])
            return len(here) == len(nodes) and all(node.get("tls") and node.get("certificate") for node in here)
        wait_for(LIMIT, f"{site}: not every node is attached with a certificate", all_here)

    def kill(self, board):
        board.kill()

    def back(self, board):
        """Starts it again and waits until all boards have one leader."""
        board.start()
        wait_for(LIMIT, f"{board.name} does not find the leader", lambda: (board.status() or {}).get("leaderName"))

    def close(self):
        pass


class Qnetd:
    """Debian's corosync-qnetd in the name space of the first board."""

    def __init__(self, lab):
        self.lab = lab
        self.space = lab.boards[1]
        self.dir = os.path.join(lab.dir, "qnetd")
        self.nssdb = os.path.join(self.dir, "etc", "qnetd", "nssdb")
        os.makedirs(self.nssdb)
        self.space.run("mount", "--bind", os.path.join(self.dir, "etc"), "/etc/corosync")
        self.space.run("mount", "-t", "tmpfs", "lab", "/run")
        self.space.run("mkdir", "/run/corosync-qnetd", "/run/lock")
        self.space.run("corosync-qnetd-certutil", "-i")
        self.daemon = self.space.start(os.path.join(self.dir, "qnetd.log"), "corosync-qnetd", "-f", "-d",
                                       "-s", "req", "-c", "on")

    def addresses(self, first):
        return [self.lab.board_address(1)]

    def enroll(self, site, nodes):
        def sign(request):
            shutil.copy(request, os.path.join(self.dir, "etc", "request.crq"))
            self.space.run("corosync-qnetd-certutil", "-s", "-c", "/etc/corosync/request.crq", "-n", site)
            return os.path.join(self.nssdb, f"cluster-{site}.crt")
        enroll_by_request(site, nodes, os.path.join(self.nssdb, "qnetd-cacert.crt"), sign)

    def check_attached(self, site, nodes):
        if not all(node.witness() for node in nodes):
            raise Failure("not every node is connected")

    def close(self):
        self.daemon.kill()
        self.daemon.wait()


def enroll_by_request(site, nodes, ca, sign):
    """The steps of `pvecm qdevice setup` and of corosync-qdevice-net-certutil -Q."""
    first = nodes[0]
    shutil.copy(ca, first.file("qnetd-cacert.crt"))
    first.certutil("-i", "-c", "/etc/corosync/qnetd-cacert.crt")
    first.certutil("-r", "-n", site)
    signed = sign(first.file("qdevice/net/nssdb/qdevice-net-node.crq"))
    shutil.copy(signed, first.file(f"cluster-{site}.crt"))
    first.certutil("-M", "-c", f"/etc/corosync/cluster-{site}.crt")
    for node in nodes[1:]:
        node.import_certificates(ca, first.file("qdevice/net/nssdb/qdevice-net-node.p12"))


# --- a site and what can be told of it ---

class Site:
    def __init__(self, name, algorithm, lab, witness, enroll=None):
        self.name = name
        self.lab = lab
        self.witness = witness
        self.nodes = lab.nodes
        self.mark = quorum_log.now()
        (enroll or witness.enroll)(name, self.nodes)
        for node in self.nodes:
            node.configure(name, algorithm)
            node.hosts(witness.addresses(node.number))

    def do(self, what, scenario, *arguments):
        """One scenario; then what the logs say of it."""
        self.mark = quorum_log.now()
        scenario(self, *arguments)
        for node in self.nodes:
            node.check_alive()
        self.tell(what)
        for overlap in self.lab.overlaps():
            raise TwoSides(f"{what}: {overlap}")

    def since(self, node, kind=None):
        return [event for event in quorum_log.events(node.log)
                if event.time >= self.mark and kind in (None, event.kind)]

    def tell(self, what):
        """Prints what the nodes told their users, in seconds from the scenario's begin."""
        print(f"  {what}", flush=True)
        for node in self.nodes:
            words = []
            formed = None
            for event in self.since(node):
                at = event.time - self.mark
                if event.kind == "formed":
                    formed = event
                    words.append(f"ring {event.ring} at {at:.2f}")
                elif event.kind == "complete" and formed:
                    words.append(f"on after a standstill of {event.time - formed.time:.2f}")
                else:
                    words.append({"quorate": "QUORATE", "lost": "NOT QUORATE", "start": "started",
                                  "end": "killed"}.get(event.kind, event.kind) + f" at {at:.2f}")
            print(f"    {node.name}: {', '.join(words) or 'nothing changed'}", flush=True)

    def whole(self):
        """All nodes on one ring, each with every vote."""
        def all_votes():
            quora = [node.quorum() for node in self.nodes]
            return all(quorum and quorum["quorate"] and quorum["votes"] == len(self.nodes) + 1
                       and quorum["nodes"] == len(self.nodes) for quorum in quora) and \
                all(node.settled(True) for node in self.nodes)
        wait_for(LIMIT, f"{self.name} does not get whole", all_votes)

    def one_side(self):
        """Waits until one node goes on alone with the witness's vote, and the others were told that
        they do not."""
        def decided():
            winners = [node for node in self.nodes if node.settled(True)]
            losers = [node for node in self.nodes if node.settled(False)]
            if len(winners) != 1 or len(losers) != len(self.nodes) - 1:
                return None
            quorum = winners[0].quorum()
            return winners[0] if quorum and (quorum["nodes"], quorum["votes"]) == (1, 2) else None
        return wait_for(LIMIT, f"{self.name}: no side gets the vote", decided)

    def never_lost(self, nodes):
        for node in nodes:
            if self.since(node, "lost"):
                raise Failure(f"{node.name} lost its quorum, though it had the votes all the time")

    def other(self, node):
        return next(other for other in self.nodes if other is not node)


def cold_start(site):
    for node in site.nodes:
        node.start()
    site.whole()
    site.witness.check_attached(site.name, site.nodes)


def death(site, node):
    """Both daemons end at once; the machine is still there and resets their connections."""
    survivor = site.other(node)
    node.kill()
    wait_for(LIMIT, f"{survivor.name} does not go on alone",
             lambda: site.since(survivor, "formed") and survivor.settled(True) and
             (survivor.quorum() or {}).get("votes") == 2)
    site.never_lost([survivor])


def birth(site, node):
    node.start()
    site.whole()
    site.never_lost([site.other(node)])


def split(site):
    site.node = site.nodes[1]
    site.node.cut("clu")
    site.winner = site.one_side()


def lowest_wins(site):
    split(site)
    if site.winner is not site.nodes[0]:
        raise Failure("the tie-breaker is the lowest node, but the other has got the vote")


def heal(site):
    for node in site.nodes:
        node.join()
    site.whole()


def pulled_plug(site, node):
    """The node loses all its links without a word. The other waits until its time is over.
    The heartbeat before it is the last that the witness hears of the node: what corosync-qnetd
    counts from, so that its two sides show at their longest."""
    time.sleep(HEARTBEAT)
    site.mark = quorum_log.now()
    node.cut()
    wait_for(LIMIT, f"{node.name} does not notice that it has no link", lambda: site.since(node, "lost"))
    if site.one_side() is node:
        raise Failure("a node without any link was given the vote")


def ring_lost(site):
    """Waits until the first node has noticed the split: its report is on its way."""
    wait_for(LIMIT, "no node notices the split", lambda: any(site.since(node, "formed") for node in site.nodes),
             every=0.01)


def leader_killed_in_split(site, attached):
    """The leader dies, without a word to its peers, while the site's split waits for its decision;
    `attached`: it is the board that a node is attached to."""
    boards = site.witness
    here = boards.at(site.nodes[0].witness())
    leader = boards.cluster.leader()
    if (leader is here) != attached:
        to = here if attached else next(board for board in boards.cluster.boards.values()
                                        if not any(boards.at(node.witness()) is board for node in site.nodes))
        # Asked again, as a handover that takes longer than an election timeout counts as failed.
        wait_for(LIMIT, f"{to.name} does not lead", lambda: boards.cluster.leader() is to or
                 to.ctl("cluster", "transfer", to.name, check=False) is None, every=2)
        leader = to
    site.mark = quorum_log.now()
    site.nodes[1].cut("clu")
    ring_lost(site)
    boards.kill(leader)
    site.killed = leader
    site.one_side()


def board_back(site):
    site.witness.back(site.killed)
    heal(site)


def board_cut_off(site):
    """The board of the node that holds the vote of a split site loses its peers, not its sites."""
    boards = site.witness
    split(site)
    here = boards.at(site.winner.witness())
    site.lab.cut(f"b{here.number}", "pn")

    def elsewhere():
        address = site.winner.witness()  # once: a second look may find it between two boards
        return address and boards.at(address) is not here
    wait_for(LIMIT, f"{site.winner.name} stays attached to a board without peers", elsewhere)
    wait_for(LIMIT, f"{here.name} listens for sites without a lease",
             lambda: refuses(site.winner, here.sites_address))
    wait_for(LIMIT, f"{site.name}: no side has the vote after its board was cut off", lambda: site.one_side())


def refuses(node, address):
    """Nobody listens there."""
    host, _, port = address.rpartition(":")
    done = subprocess.run([*node.space.inside, "bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}"],
                          capture_output=True, text=True, timeout=20)
    return done.returncode != 0 and "refused" in done.stderr


def board_joined(site):
    for number in site.lab.boards:
        site.lab.join(f"b{number}", "pn")
    heal(site)


def no_witness(site):
    """S7: nodes that see each other need no witness."""
    boards = site.witness.cluster.boards.values()
    for board in boards:
        board.signal(signal.SIGTERM)
    for board in boards:
        if board.process.wait(30) != 0:
            raise Failure(f"{board.name} ended with {board.process.returncode}: {board.last_log()}")
    for node in site.nodes:
        wait_for(LIMIT, f"{node.name} still counts the witness's vote",
                 lambda: (node.quorum() or {}).get("votes") == len(site.nodes))
    time.sleep(2)
    site.never_lost(site.nodes)


def witness_back(site):
    for board in site.witness.cluster.boards.values():
        board.start()
    site.whole()
    site.never_lost(site.nodes)


def wrong_certificate(site, node):
    """It is turned away, again and again, and its neighbour does not notice."""
    node.kill()
    node.forget_certificates()
    site.witness.enroll("foreign", [node])
    node.start()
    wait_for(LIMIT, "nobody was refused for a wrong certificate",
             lambda: any("certificate" in line and site.name in line for board in
                         site.witness.cluster.boards.values() for line in open(board.log, errors="replace")))
    wait_for(LIMIT, f"{site.name}: the nodes do not see each other",
             lambda: (node.quorum() or {}).get("nodes") == 2 and node.settled(True))
    shown = site.witness.cluster.any().json("site", "show", site.name)
    if [here["nodeId"] for here in shown["status"]["nodes"]] != [site.other(node).number]:
        raise Failure(f"attached are {shown['status']['nodes']}")
    site.never_lost([site.other(node)])


def sites_ca_rotated(site, first, second):
    """A node that knows the old CA alone goes on, one that is enrolled now knows the new one alone; after the end
    of the rotation, the first is not let in before it has a new certificate, and nobody's quorum is lost."""
    board = site.witness.cluster.any()
    finish = ["cluster", "rotate-ca", "--sites", "--finish", "--yes"]
    here = lambda: [node["nodeId"] for node in board.json("site", "show", site.name).get("status", {}).get("nodes", [])]
    board.ctl("cluster", "rotate-ca", "--sites", "--yes")
    first.stop_qdevice()
    wait_for(LIMIT, "a node whose qdevice has ended stays attached", lambda: here() == [second.number])
    first.start_qdevice()
    site.witness.check_attached(site.name, site.nodes)
    refused = board.ctl(*finish, check=False)
    if refused.returncode == 0 or f"1 sites have no certificate of the new CA, the first is {site.name}" not in refused.stderr:
        raise Failure(f"the rotation ended too early: {refused.returncode} {refused.stderr}")

    def enrolled(node, name):
        node.kill()
        node.forget_certificates()
        out = os.path.join(site.lab.dir, name)
        board.ctl("site", "enroll", site.name, "--out", out)
        node.import_certificates(f"{out}/qnetd-cacert.crt", f"{out}/qdevice-net-node.p12")
        node.start()
        site.whole()
        site.witness.check_attached(site.name, site.nodes)
    enrolled(second, "of-the-new-ca")
    board.ctl(*finish)
    wait_for(LIMIT, "a node with a certificate of the old CA stays", lambda: here() == [second.number])
    first.stop_qdevice()
    first.start_qdevice()
    time.sleep(2)
    if here() != [second.number]:
        raise Failure(f"attached are {here()} after the end of the old CA")
    site.never_lost([first])
    enrolled(first, "once-more")


def right_certificate(site, node):
    """As it was before wrong_certificate."""
    site.witness.cluster.any().ctl("site", "delete", "foreign")
    node.kill()
    node.forget_certificates()
    out = os.path.join(site.lab.dir, site.name)
    node.import_certificates(f"{out}/qnetd-cacert.crt", f"{out}/qdevice-net-node.p12")
    node.start()
    site.whole()


# --- the tests ---

def make_lab(cluster):
    lab = Lab(os.path.join(cluster.dir, "lab"))
    cluster.cleanups.append(lab.close)
    return lab


def checker_knows_two_sides(cluster):
    """The logs of two nodes that were quorate on different rings for 1.9 s, with corosync-qnetd 3.0.3."""
    folder = os.path.join(os.path.dirname(__file__), "qnetd_overlap")
    found = quorum_log.overlaps({name: os.path.join(folder, f"{name}.log") for name in ("n1", "n2")})
    if len(found) != 1 or not 1 < found[0].end - found[0].begin < 4:
        raise Failure(f"the checker finds {[str(overlap) for overlap in found]}")


def every_scenario(site):
    first, second = site.nodes
    site.do("cold start", cold_start)
    site.do("node 2 dies", death, second)
    site.do("node 2 comes back", birth, second)
    site.do("node 1 dies", death, first)
    site.do("node 1 comes back", birth, first)
    site.do("split", lowest_wins)
    site.do("heal", heal)
    site.do("split", split)
    site.do("pulled plug of the node that has the vote of a split site", pulled_plug, site.winner)
    site.do("heal", heal)
    site.do("pulled plug of the preferred node of a whole site", pulled_plug, first)
    site.do("heal", heal)
    site.do("split, leader killed (a node's own board)", leader_killed_in_split, True)
    site.do("board back, heal", board_back)
    site.do("split, leader killed (another board)", leader_killed_in_split, False)
    site.do("board back, heal", board_back)
    site.do("split, board of the node with the vote cut off", board_cut_off)
    site.do("board joined, heal", board_joined)
    site.do("all boards stopped", no_witness)
    site.do("all boards started", witness_back)
    site.do("node 2 with another site's certificate", wrong_certificate, second)


def ffsplit(cluster):
    lab = make_lab(cluster)
    site = Site("site-1", "ffsplit", lab, Boards(cluster, lab))
    every_scenario(site)
    site.do("node 2 with its own certificate", right_certificate, site.nodes[1])
    site.do("the CA of the sites rotated", sites_ca_rotated, *site.nodes)


def lms(cluster):
    lab = make_lab(cluster)
    boards = Boards(cluster, lab)
    every_scenario(Site("site-2", "lms", lab, boards, boards.enroll_by_request))


def fast_handover(cluster):
    """`handover: fast` is the choice of corosync-qnetd's two sides at a pulled plug. It is also how the
    checker is seen to find them, and that it is not luck that it finds none in the other tests."""
    lab = make_lab(cluster)
    boards = Boards(cluster, lab)
    site = Site("site-3", "ffsplit", lab, boards)
    boards.board(1).ctl("site", "set", site.name, "--handover", "fast")
    site.do("cold start", cold_start)
    two_sides_expected(site, "a site with the fast handover")
    site.do("heal", heal)


def two_sides_expected(site, whose):
    try:
        site.do("pulled plug of the preferred node of a whole site", pulled_plug, site.nodes[0])
    except TwoSides as found:
        print(f"    found, as expected of {whose}: {found}")
    else:
        raise Failure(f"{whose} had no two sides at a pulled plug: does the checker see?")


def qnetd():
    with Cluster(os.curdir, keep="--keep" in sys.argv) as cluster:
        lab = make_lab(cluster)
        witness = Qnetd(lab)
        cluster.cleanups.append(witness.close)
        site = Site("site-1", "ffsplit", lab, witness)
        site.do("cold start", cold_start)
        site.do("node 2 dies", death, site.nodes[1])
        site.do("node 2 comes back", birth, site.nodes[1])
        site.do("split", lowest_wins)
        site.do("heal", heal)
        two_sides_expected(site, "corosync-qnetd")
        site.do("heal", heal)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if "--qnetd" in sys.argv:
        qnetd()
    else:
        main([checker_knows_two_sides, ffsplit, lms, fast_handover])
