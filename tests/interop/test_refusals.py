"""What only someone with the key can get wrong: the daemon names each, and nothing changes.

Datagrams that are wrong without the key (flipped, cut, replayed) are in tests/daemon.
"""

import os
import time
import unittest

import test_pair
import wire
from daemon import until


class Refusals(test_pair.Pair):
    """gw1 is a daemon and master; gw2 says something wrong."""

    def setUp(self):
        super().setUp()
        self.gateway, self.peer = self.start()
        self.gw1 = self.remote(self.peer)

    def refused(self, word, change=None, nonce=None, session=None, add=b""):
        """Sends one message of gw2, changed, and waits until it is refused by this name alone."""
        before = self.gateway.status()["refusals"]
        with self.peer.lock:
            self.gw1.number += 1
            self.gw1.counter += 1
            body = self.peer.body(self.gw1, time.monotonic())
            (change or (lambda body: None))(body)
            mine, self.peer.session = self.peer.session, session or self.peer.session
            head, keys = self.peer.head(self.gw1)
            self.peer.session = mine
            datagram = wire.seal(keys, head, wire.encode(body) + add, nonce)
            self.peer.socket.sendto(datagram, self.gw1.address)
        until(word, lambda: self.gateway.refused(word) == before[word] + 1)
        status = self.gateway.status()
        after = status["refusals"]
        self.assertEqual([w for w in after if after[w] != before[w]], [word])
        self.assertEqual((status["role"], status["term"]), ("master", 1))
        self.assertTrue(self.gateway.node("gw2")["alive"])

    def test_nonce(self):
        """Sealed with the right key, but with a nonce of one's own choice."""
        self.refused("nonce", nonce=os.urandom(12))

    def test_never_sent(self):
        """An echo of a message that gw1 did not send yet."""

        def ahead(body):
            session, number, age = body["echo"]
            body["echo"] = (session, number + 1_000_000, age)

        before = self.gw1.session
        with self.peer.lock:
            self.gw1.number += 1
            self.gw1.counter += 1
            body = self.peer.body(self.gw1, time.monotonic())
            ahead(body)
            head, keys = self.peer.head(self.gw1)
            self.peer.socket.sendto(wire.seal(keys, head, wire.encode(body)), self.gw1.address)
        # It was copied or set back: it goes on in a new session.
        until("a new session", lambda: self.gw1.session not in (None, before))
        self.assertIsNone(self.gateway.process.poll())
        with open(self.rig.path("gw1.log"), encoding="utf-8") as file:
            log = file.read()
        self.assertIn("a new session: this machine was copied or set back", log)

    def test_unknown_session(self):
        """An authentic message of a session that is not the established one."""

        def claim(body):
            # As a replay of an earlier boot would: it echoes nothing of now.
            body.update(role=(wire.ROLES.index("master"), 99), goodbye=True)
            del body["echo"]

        self.refused("unknown-session", claim, session=os.urandom(16))

    def test_malformed(self):
        """Every rule of section 4, broken once."""
        changes = {
            "a required field is missing": lambda b: b.pop("clock"),
            "a role that is none": lambda b: b.update(role=(4, 0)),
            "a master without a term": lambda b: b.update(role=(2, 0)),
            "a backup with a term": lambda b: b.update(role=(1, 1)),
            "an interval below 10 ms": lambda b: b.update(timing=(9_999, 3)),
            "an interval above 10 s": lambda b: b.update(timing=(10_000_001, 3)),
            "one miss": lambda b: b.update(timing=(100_000, 1)),
            "a WireGuard that is none": lambda b: b.update(wireguard=3),
            "an evidence that is none": lambda b: b.update(evidence=(3, 0)),
            "a release of term 0": lambda b: b.update(release=(0, bytes(8), 0, 1)),
            "a request of term 0": lambda b: b.update(request=(0, 1, 0)),
            "two of a handover's messages": lambda b: b.update(ready=1, refuse=(1, 1)),
            "a yield of term 0": lambda b: b.update(yielded=(0, 0)),
            "more losses than messages": lambda b: b.update(loss=65),
            "message number 0": lambda b: b.update(number=0),
        }
        for what, change in changes.items():
            with self.subTest(what):
                self.refused("malformed", change)
        tails = {
            "half a field": bytes((200,)),
            "a field without its value": bytes((200, 5, 1)),
            "a field twice": bytes((4, 1, 50)),
            "a field that is too long": bytes((20, 1, 0)),
        }
        for what, tail in tails.items():
            with self.subTest(what):
                self.refused("malformed", add=tail)

    def test_unknown_fields_are_skipped(self):
        """A later version may say more."""
        before = self.gateway.status()["refusals"]
        self.peer.unknown = bytes((200, 3, 1, 2, 3)) + bytes((60, 8)) + bytes(8)
        number = self.gw1.number
        until("it is echoed", lambda: self.gw1.body["echo"][1] > number + 5)
        self.assertEqual(self.gateway.status()["refusals"], before)
        self.assertTrue(self.gateway.node("gw2")["alive"])


class DuplicateName(test_pair.Pair):
    """Two processes of one name."""

    def test_the_newcomer_is_told_and_the_established_one_stays(self):
        """It goes to no role; the daemon goes on with the first."""
        gateway, peer = self.start()
        gw1 = self.remote(peer)
        session = gw1.session
        address = self.rig.addresses["gw2"]
        newcomer = self.rig.peer("gw2", bind=(address[0], address[1] + 1))
        other = self.remote(newcomer)
        until("the notice", lambda: newcomer.duplicate_at > newcomer.started)
        self.assertIsNotNone(other.session)
        self.assertTrue(self.is_ready_backup(gateway))
        self.assertEqual((gw1.session, gateway.role()), (session, "master"))
        peer.close()
        until("the first is silent: the other is let in", lambda: self.claims(newcomer, 1))


if __name__ == "__main__":
    unittest.main()
