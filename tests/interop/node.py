"""A node of the cluster: its socket, what it sends and what it takes; section 5 of
docs/protocol.md. One address, and so one path, for each node.
"""

import collections
import hashlib
import os
import select
import socket
import threading
import time

import wire
from remote import REMEMBERED_SENT, Remote
from roles import INIT, MASTER, Roles
from wire import HEADER, HEALTHY, LEAVING, READY, SETTLED, Refused

RELEASE_AGAIN_S = 0.005
QUEUE = 64
"""Datagrams that are taken at a time."""


class Node(Roles):
    """A gateway, or a witness, among `others`: {name: (address, is a witness)}."""

    def __init__(self, cluster, name, bind, keys, others, **options):
        self.cluster, self.name, self.keys = cluster, name, keys
        self.tag = wire.node_tag(cluster, name)
        self.witness = options.get("witness", False)
        self.interval = options.get("interval", 0.1)
        self.misses = options.get("misses", 3)
        self.priority = options.get("priority", 50)
        self.fingerprint = options.get("fingerprint", bytes(16))
        self.refuse_with = options.get("refuse_with")
        self.session, self.obituary_secret = os.urandom(16), os.urandom(32)
        self.role, self.term, self.highest_term = INIT, 0, 0
        self.leaving = False
        self.refusals = collections.Counter()
        self.remotes = {}
        for other, (address, votes) in others.items():
            tag = wire.node_tag(cluster, other)
            self.remotes[tag] = Remote(tag, other, address, votes or self.witness)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(bind)
        self.socket.setblocking(False)
        self.extra = options.get("extra", {})
        """Fields added to every message."""
        self.unknown = b""
        """Bytes added to every body."""
        self.answers, self.notes, self.released = {}, {}, None
        self.handover = None
        self.handover_id = 0
        self.duplicate_at = float("-inf")
        self.started = self.no_claim_since = time.monotonic()
        self.standby_since = None
        self.lock = threading.RLock()
        self.stop = threading.Event()
        self.silent = False
        """Neither sends nor receives."""
        self.candidate = not self.witness
        """Wins terms by itself."""
        self.thread = threading.Thread(target=self.run, daemon=True)

    @property
    def detection(self):
        """My detection time in seconds."""
        return self.interval * self.misses

    # The thread.

    def run(self):
        """Sends each interval, receives in between."""
        due = time.monotonic()
        while not self.stop.is_set():
            # What has come counts before silence does.
            for _ in range(QUEUE):
                if not select.select([self.socket], [], [], 0)[0]:
                    break
                self.receive()
            now = time.monotonic()
            with self.lock:
                if now >= due:
                    self.beat(now)
                    # Slots missed by a sleep are not made up for.
                    due += self.interval * (1 + (now - due) // self.interval)
                self.decide(now)
            wait = min(max(due - time.monotonic(), 0), RELEASE_AGAIN_S)
            select.select([self.socket], [], [], wait)

    def receive(self):
        """Takes one datagram."""
        try:
            datagram, source = self.socket.recvfrom(1500)
        except OSError:
            return
        with self.lock:
            if self.silent:
                return
            try:
                self.take(datagram, source, time.monotonic())
            except Refused as refusal:
                self.refusals[str(refusal)] += 1

    def close(self):
        """Ends the thread without a word, as a crash would."""
        self.stop.set()
        self.thread.join()
        self.socket.close()

    def beat(self, now):
        """One heartbeat to everyone."""
        for remote in self.remotes.values():
            self.send(remote, now)

    # Sending: sections 2 to 4.

    def send(self, remote, now, echo=None, to=None, **fields):
        """One message. `fields` are added to it, or replace its own."""
        if self.silent:
            return
        remote.number += 1
        remote.counter += 1
        remote.sent[remote.number] = now
        while len(remote.sent) > REMEMBERED_SENT:
            remote.sent.popitem(last=False)
        body = self.body(remote, now)
        if echo is not None:
            body["echo"] = (*echo, 0)
        body.update(fields)
        head, keys = self.head(remote)
        plaintext = wire.encode(body) + self.unknown
        self.socket.sendto(wire.seal(keys, head, plaintext), to or remote.address)

    def head(self, remote):
        """(the first 56 bytes, the keys) of the message that is sent now."""
        key = self.keys.first
        secret = self.keys.secret(key, remote.vote)
        head = HEADER.pack(
            *(wire.MAGIC, wire.VERSION, 0, key, wire.cluster_tag(self.cluster), self.tag),
            *(remote.tag, self.session, remote.counter, bytes(12)),
        )[: wire.NONCE_AT]
        return head, wire.session_keys(secret, self.cluster, self.session, self.name, remote.name)

    def body(self, remote, now):
        """What is said to a node."""
        timely = now - remote.timely_at <= remote.detection if remote.body else False
        fields = {
            "number": remote.number,
            "role": (self.role, self.term if self.role == MASTER else 0),
            "priority": self.priority,
            "flags": self.flags(now),
            "timing": (round(self.interval * 1e6), self.misses),
            "fingerprint": self.fingerprint,
            "wireguard": 0,
            "clock": (time.monotonic_ns(), time.time_ns()),
            "evidence": (0, 0),
            "obituary_hash": hashlib.sha256(self.obituary_secret).digest(),
            "highest_term": self.highest_term,
            "paths_heard": int(timely),
        }
        if remote.echo:
            session, number, at = remote.echo
            fields["echo"] = (session, number, round((now - at) * 1e6))
        hears = self.hears(now)
        if hears:
            fields["hears"] = hears
        if self.handover and self.handover[0] == remote.tag:
            fields["request"] = (self.term, self.handover_id, 2)
        elif remote.tag in self.answers:
            fields.update(self.answers[remote.tag])
        if self.released:
            term, successor, until, _, _ = self.released
            remaining = max(0, round((until - now) * 1e3))
            fields["release"] = (term, successor, remaining, 1)
        return fields | self.extra

    def flags(self, now):
        """HEALTHY and its like."""
        settled = self.standby_since is not None
        settled = settled and now - self.standby_since >= self.detection
        able = 0 if self.witness else READY
        return HEALTHY | able | LEAVING * self.leaving | SETTLED * settled

    def hears(self, now):
        """The master that I hear: (tag, term, ms)."""
        if self.role == MASTER:
            return self.tag, self.term, 0
        claims = [(r.claim[1], r) for r in self.remotes.values() if r.claim]
        if not claims:
            return None
        at, remote = max(claims, key=lambda claim: claim[0])
        return remote.tag, remote.claim[0], round((now - at) * 1e3)

    # Receiving: section 5, in its order.

    def take(self, datagram, source, now):
        """Refuses a datagram, or learns from it."""
        remote, header, body = self.open(datagram)
        _, _, path, _, _, _, _, session, counter, _ = header
        echo = body.get("echo")
        mine = echo is not None and echo[0] == self.session
        if mine and echo[1] > remote.number:
            raise Refused("never-sent")
        self.obituary(body)
        # It was this session's own: nothing else in it counts.
        if session in remote.ended:
            return
        sent_at = remote.sent.get(echo[1]) if mine else None
        timely = sent_at is not None and now - sent_at <= self.detection
        if session == remote.session and not timely and body["number"] <= remote.newest_number:
            raise Refused("replayed")
        if session != remote.session:
            self.meet(remote, session, body, timely, source, now)
        remote.mark(counter)
        if timely:
            remote.timely_at = now
            remote.rtt = now - sent_at - echo[2] / 1e6
        if body["number"] > remote.newest_number:
            self.learn(remote, body, timely, now)
        if body.get("duplicate_name") and timely:
            self.duplicate_at = now
        if body.get("goodbye"):
            remote.end()
            self.no_claim_since = now

    def open(self, datagram):
        """(remote, header, body) of a datagram that is authentic, new and well formed."""
        if not wire.SHORTEST <= len(datagram) <= wire.LONGEST:
            raise Refused("length")
        header = HEADER.unpack_from(datagram)
        magic, version, path, key, cluster, sender, receiver, session, counter, _ = header
        remote = self.remotes.get(sender)
        for refusal, bad in (
            ("magic", magic != wire.MAGIC),
            ("version", version != wire.VERSION),
            ("cluster", cluster != wire.cluster_tag(self.cluster)),
            ("reflection", sender == self.tag),
            ("receiver", receiver != self.tag),
            ("sender", remote is None),
            ("path", path > wire.MAX_PATH),
            ("key", key not in self.keys.secrets),
            ("ended-session", remote is not None and session in remote.ended),
        ):
            if bad:
                raise Refused(refusal)
        secret = self.keys.secret(key, remote.vote)
        keys = wire.session_keys(secret, self.cluster, session, remote.name, self.name)
        plaintext = wire.unseal(keys, datagram)
        if session == remote.session and not remote.is_new(counter):
            raise Refused("replayed")
        return remote, header, wire.decode(plaintext)

    def obituary(self, body):
        """Ends the session whose secret is shown."""
        tag, session, secret = body.get("obituary", (None, None, b""))
        remote = self.remotes.get(tag)
        shown = hashlib.sha256(secret).digest()
        if remote and remote.session == session and remote.obituary_hash == shown:
            remote.end()
            self.no_claim_since = time.monotonic()

    def meet(self, remote, session, body, timely, source, now):
        """A session that is not established: it becomes so, or it is answered and refused."""
        silent = remote.session is None
        if remote.session is not None:
            interval = max(self.interval, remote.body["timing"][0] / 1e6)
            silent = now - remote.timely_at > 2 * interval
        if not (timely and silent):
            if now - remote.answered_at >= 0.75 * self.interval:
                remote.answered_at = now
                notice = {} if silent else {"duplicate_name": True}
                self.send(remote, now, echo=(session, body["number"]), to=source, **notice)
            raise Refused("unknown-session")
        remote.forget()
        remote.session = session
        # So that it knows me at once, it hears its own session back.
        remote.echo = (session, body["number"], now)
        self.send(remote, now)

    def learn(self, remote, body, timely, now):
        """What a message says that is newer than all before."""
        remote.newest_number = body["number"]
        remote.heard_at = now
        remote.echo = (remote.session, body["number"], now)
        self.highest_term = max(self.highest_term, body["highest_term"], body["role"][1])
        if timely:
            remote.body = body
            remote.obituary_hash = body["obituary_hash"]
            self.claims(remote, body, now)
            self.asked(remote, body)
            self.answered(remote, body, now)
        if self.released:
            self.released[4].update([remote.tag] if self.heard_release(remote, body) else [])
        if "release" in body:
            self.honour(remote, *body["release"], now)
            self.send(remote, now)

    def heard_release(self, remote, body):
        """It echoes a message of mine that carried the release."""
        session, number, _ = body.get("echo", (None, 0, 0))
        sent_at = remote.sent.get(number) if session == self.session else None
        return sent_at is not None and sent_at >= self.released[3]

    def goodbye(self):
        """Ends the session with a last message; a master gives its term up with it."""
        with self.lock:
            for remote in self.remotes.values():
                self.send(remote, time.monotonic(), goodbye=True)
        self.close()
