"""The second implementation and a real daemon, as a pair of gateways on the loopback."""

import os
import signal
import socket
import time
import unittest

import wire
from daemon import Rig, until
from roles import BACKUP, MASTER


class Pair(unittest.TestCase):
    """gw1 is the daemon, gw2 the second implementation; gw1 is the better candidate."""

    nodes = {"gw1": {"priority": 150}, "gw2": {"priority": 50}}

    def run(self, result=None):
        """As always, but what the daemons wrote is shown if the test fails."""

        def bad():
            return len(result.failures) + len(result.errors)

        before, self.rig = bad(), Rig(self.nodes)
        try:
            super().run(result)
            if bad() > before:
                print(self.rig.logs())
        finally:
            self.rig.close()
        return result

    def remote(self, peer, name="gw1"):
        """What the second implementation knows of a node."""
        return peer.remotes[wire.node_tag("edge", name)]

    def claims(self, peer, term=None, name="gw1"):
        """Whether it hears that node as master, of that term if one is given."""
        claim = self.remote(peer, name).claim
        return claim is not None and term in (None, claim[0])

    def start(self):
        """Both, with the daemon as master of term 1: (daemon, peer)."""
        daemon, peer = self.rig.daemon("gw1"), self.rig.peer("gw2")
        # A daemon that takes long to start would find it master.
        wins, peer.candidate = peer.candidate, False
        until("gw1 is master", lambda: self.claims(peer, 1))
        peer.candidate = wins
        until("gw2 is a ready backup", lambda: self.is_ready_backup(daemon))
        return daemon, peer

    @staticmethod
    def is_ready_backup(daemon):
        """The daemon hears gw2 as one that could take over."""
        node = daemon.node("gw2")
        return node and node["alive"] and node["role"] == "backup" and node["ready"]

    def start_as_master(self):
        """Both, with the second implementation as master of term 1: (daemon, peer)."""
        peer = self.rig.peer("gw2")
        until("gw2 is master alone", lambda: peer.role == MASTER)
        daemon = self.rig.daemon("gw1")
        until("gw1 follows", lambda: self.follows(daemon, 1))
        return daemon, peer

    @staticmethod
    def follows(daemon, term):
        """The daemon is backup of gw2, master of this term."""
        status = daemon.status()
        return status and (status["role"], status["master"], status["term"]) == (
            *("backup", "gw2"),
            term,
        )


class Seen(Pair):
    """Heartbeats that each takes for timely, and what they say."""

    def test_alive_with_everything_it_says(self):
        """The daemon's status shows the other node as it is."""
        daemon, peer = self.start()
        def known():
            node = daemon.node("gw2")
            alive = [path["alive"] for path in node["paths"]] == [True]
            return alive and node["term"] == 1 and node["rtt_ms"] and node["ready"] and node

        node = until("gw2 knows the term, on its path", known)
        self.assertEqual((node["role"], node["priority"]), ("backup", 50))
        self.assertTrue(node["healthy"] and node["ready"] and node["config_match"], node)
        self.assertFalse(node["maintenance"] or node["witness"], node)
        self.assertLess(abs(node["clock_offset_ms"]), 1000, node)
        self.assertGreater(node["rtt_ms"], 0)
        gw1 = self.remote(peer)
        self.assertEqual(gw1.body["fingerprint"], peer.fingerprint)
        self.assertEqual((gw1.body["priority"], gw1.body["wireguard"]), (150, 0))
        self.assertEqual(gw1.body["hears"], (gw1.tag, 1, 0))
        until("gw1 is heard on path 0", lambda: gw1.body["paths_heard"] == 1)
        # Each met the other by one unknown session, answered; nothing else was refused.
        self.assertLessEqual(set(peer.refusals), {"unknown-session"})
        refusals = daemon.status()["refusals"]
        self.assertLessEqual({w for w, n in refusals.items() if n}, {"unknown-session"})

    def test_another_config_is_named_and_never_dropped(self):
        """A fingerprint that differs."""
        daemon = self.rig.daemon("gw1")
        self.rig.peer("gw2", fingerprint=os.urandom(16))
        until("gw1 is master", lambda: daemon.role() == "master")
        node = until("gw2 is alive", lambda: (n := daemon.node("gw2")) and n["alive"] and n)
        self.assertIs(node["config_match"], False)

    def test_silence(self):
        """A node that is not heard is not alive; it is again as soon as it is heard."""
        daemon, peer = self.start()
        peer.candidate, peer.silent = False, True
        until("gw2 is missed", lambda: not daemon.node("gw2")["alive"])
        peer.silent = False
        until("gw2 is alive again", lambda: daemon.node("gw2")["alive"])
        self.assertEqual(daemon.role(), "master")
        self.assertTrue(self.claims(peer, 1))


class Handover(Pair):
    """Sections 8 and 9, both ways."""

    def test_to_the_second_implementation_and_back(self):
        """Request, ready, leaving, release, claim."""
        daemon, peer = self.start()
        self.assertEqual(daemon.wgha("handover", "--to", "gw2"), (0, "gw2 is master now\n"))
        self.assertEqual((peer.role, peer.term), (MASTER, 2))
        self.assertEqual(peer.notes["release"], (1, peer.tag))
        until("gw1 follows", lambda: self.follows(daemon, 2))
        peer.ask("gw1")
        until("gw1 is master again", lambda: self.claims(peer, 3))
        self.assertEqual((peer.role, peer.notes.get("refused")), (BACKUP, None))
        self.assertEqual(daemon.role(), "master")

    def test_refused_by_the_second_implementation(self):
        """The operator reads the reason, and nothing changes."""
        daemon = self.rig.daemon("gw1")
        peer = self.rig.peer("gw2", refuse_with=9)
        until("gw1 is master", lambda: self.claims(peer, 1))
        until("gw2 is a ready backup", lambda: self.is_ready_backup(daemon))
        code, text = daemon.wgha("handover", "--to", "gw2")
        self.assertEqual((code, "stopping" in text), (1, True), text)
        self.assertEqual(daemon.role(), "master")
        self.assertTrue(self.claims(peer, 1))

    def test_refused_by_the_daemon(self):
        """In maintenance it says so."""
        daemon, peer = self.start_as_master()
        self.assertEqual(daemon.wgha("maintenance", "on")[0], 0)
        peer.ask("gw1")
        until("the refusal", lambda: peer.notes.get("refused"))
        self.assertEqual(peer.notes["refused"], 3)
        self.assertEqual(peer.role, MASTER)

    def test_a_clean_stop_hands_over_and_says_goodbye(self):
        """SIGTERM: the successor is named, the session ends."""
        daemon, peer = self.start()
        gw1 = self.remote(peer)
        session = gw1.session
        self.assertEqual(daemon.terminate(), 0)
        until("gw2 is master", lambda: peer.role == MASTER)
        self.assertEqual((peer.term, peer.notes["release"]), (2, (1, peer.tag)))
        until("goodbye", lambda: session in gw1.ended)

    def test_a_release_without_a_word_before(self):
        """The second implementation leaves without asking, in favour of gw1."""
        daemon, peer = self.start_as_master()
        with peer.lock:
            peer.leave(wire.node_tag("edge", "gw1"), time.monotonic())
        until("gw1 is master", lambda: self.claims(peer, 2))
        self.assertEqual(daemon.status()["reason"], "handover from gw2")

    def test_two_masters(self):
        """After both claimed alone, the higher term stays and the other says that it yields."""
        daemon, peer = self.start()
        with peer.lock:
            peer.win(time.monotonic())
        until("gw1 yields", lambda: self.follows(daemon, 2))
        term, _ = until("it says so", lambda: self.remote(peer).body.get("yielded"))
        self.assertEqual(term, 1)


class Loss(Pair):
    """Takeovers by silence, goodbye and obituary."""

    def test_a_daemon_that_is_killed(self):
        """The second implementation takes over; the daemon comes back and follows."""
        daemon, peer = self.start()
        daemon.kill()
        until("gw2 takes over", lambda: peer.role == MASTER)
        self.assertEqual(peer.term, 2)
        daemon = self.rig.daemon("gw1")
        until("gw1 follows, in spite of its priority", lambda: self.follows(daemon, 2))
        self.assertEqual(peer.role, MASTER)

    def test_a_daemon_whose_worker_is_killed(self):
        """Its guard shows the obituary: the second implementation knows before anyone is silent."""
        daemon, peer = self.start()
        gone = self.remote(peer).session
        daemon.kill_worker()
        until("gw2 takes over", lambda: peer.role == MASTER)
        self.assertEqual(peer.term, 2)
        until("the obituary, which silence does not give", lambda: gone in self.remote(peer).ended)
        self.assertEqual(daemon.process.wait(timeout=60), -signal.SIGKILL)
        daemon = self.rig.daemon("gw1")
        until("gw1 follows, in spite of its priority", lambda: self.follows(daemon, 2))

    def test_a_second_implementation_that_is_killed(self):
        """The daemon takes over by silence."""
        daemon, peer = self.start_as_master()
        peer.close()
        until("gw1 takes over", lambda: daemon.role() == "master")
        self.assertEqual(daemon.status()["term"], 2)

    def test_goodbye_ends_the_claim(self):
        """A master that only says goodbye is replaced, and its session is over."""
        daemon, peer = self.start_as_master()
        head, keys = self.capture(peer)
        peer.goodbye()
        until("gw1 takes over", lambda: daemon.role() == "master")
        before = daemon.refused("ended-session")
        self.say(peer, head, keys)
        until("ended", lambda: daemon.refused("ended-session") > before)
        self.assertFalse(daemon.node("gw2")["alive"])

    def capture(self, peer):
        """Header and keys of what the peer would say next to gw1."""
        with peer.lock:
            gw1 = self.remote(peer)
            gw1.counter += 1000
            return peer.head(gw1)

    def say(self, peer, head, keys):
        """Sends a message for a peer that is closed."""
        body = peer.body(self.remote(peer), time.monotonic())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(wire.seal(keys, head, wire.encode(body)), self.rig.addresses["gw1"])

    def test_an_obituary_lets_a_new_session_in_at_once(self):
        """Who shows the secret of the last session need not wait until that is silent."""
        daemon, peer = self.start_as_master()
        session, secret = peer.session, peer.obituary_secret
        peer.close()
        again = self.rig.peer("gw2", extra={"obituary": (peer.tag, session, secret)})
        until("gw1 is master", lambda: self.claims(again, 2))
        self.assertEqual(daemon.refused("never-sent"), 0)
        self.assertNotIn("duplicate_name", self.remote(again).body)


class Witness(Pair):
    """The second implementation as a witness: the vote key. gw2 never runs."""

    nodes = {"gw1": {"priority": 150}, "gw2": {}, "w1": {"witness": True}}

    def test_alive(self):
        """Each hears the other; the witness's keys are those that `wgha keygen` derives."""
        daemon, peer = self.rig.daemon("gw1"), self.rig.peer("w1")
        until("gw1 is master", lambda: self.claims(peer, 1))
        node = until("w1 is alive", lambda: (n := daemon.node("w1")) and n["alive"] and n)
        self.assertEqual((node["witness"], node["role"]), (True, "backup"))
        self.assertTrue(node["config_match"])
        code, text = daemon.wgha("keygen", "--witness-from", self.rig.key_file)
        self.assertEqual(code, 0, text)
        self.assertEqual(wire.Keys.parse(text).secrets, peer.keys.secrets)

    def test_a_witness_cannot_speak_as_a_gateway(self):
        """It says that it is gw2, with the key that it has."""
        daemon, peer = self.rig.daemon("gw1"), self.rig.peer("w1")
        until("gw1 is master", lambda: self.claims(peer, 1))
        before = daemon.refused("seal")
        with peer.lock:
            mine, peer.name, peer.tag = (peer.name, peer.tag), "gw2", wire.node_tag("edge", "gw2")
            self.assertEqual(peer.keys.kind, wire.WITNESS)
            gw1 = self.remote(peer)
            head, keys = peer.head(gw1)
            datagram = wire.seal(keys, head, wire.encode(peer.body(gw1, time.monotonic())))
            peer.socket.sendto(datagram, gw1.address)
            peer.name, peer.tag = mine
        until("refused", lambda: daemon.refused("seal") == before + 1)
        self.assertIs(daemon.node("gw2")["alive"], False)


if __name__ == "__main__":
    unittest.main()
