"""Roles, elections and handover: sections 6 to 9 of docs/protocol.md.

Left out: preemption, outside evidence, a third node's word on the master. They need no other
bytes on the wire.
"""

import time

import wire
from wire import HEALTHY, LEAVING, MAINTENANCE, SETTLED

INIT, BACKUP, MASTER, FAULT = range(4)
NOBODY = bytes(8)


class Roles:
    """The half of a `Node` that decides."""

    # Claims and elections: sections 6 to 8.

    def claims(self, remote, body, now):
        """Another node says that it is master, or no longer does."""
        role, term = body["role"]
        if role == MASTER:
            remote.claim = (term, now)
            mine = (self.term, self.priority, self.name)
            theirs = (term, body["priority"], remote.name)
            if self.role == MASTER and not remote.says(LEAVING) and mine < theirs:
                self.extra["yielded"] = (self.term, 0)
                self.become(BACKUP, now)
        elif remote.claim:
            remote.claim = None
            self.no_claim_since = now

    def decide(self, now):
        """What follows from time passing."""
        gateways = [r for r in self.remotes.values() if r.name not in self.witnesses()]
        heard = all(self.alive(r, now) for r in gateways)
        if self.role == INIT and (heard or now - self.started >= self.detection):
            self.become(BACKUP, now)
        elif self.role == BACKUP and self.candidate and self.due(gateways, heard, now) <= now:
            self.win(now)
        if self.handover and now > self.handover[1]:
            self.handover = None
        if self.released:
            _, _, until, _, told = self.released
            left = [r for r in self.remotes.values() if self.alive(r, now) and r.tag not in told]
            if now > until or not left:
                self.released = None
            for remote in left if self.released else []:
                self.send(remote, now)

    def witnesses(self):
        """The names of those that only vote; a gateway's `vote` remotes are witnesses."""
        return [] if self.witness else [r.name for r in self.remotes.values() if r.vote]

    def due(self, gateways, heard, now):
        """When the role of master is mine if nothing else happens: section 7."""
        if now - self.duplicate_at < self.detection or self.preferred(now):
            return float("inf")
        rank = sum(self.better(r, now) for r in gateways)
        rtts = [r.rtt for r in gateways if r.rtt]
        wait = rank * max(self.interval / 4, 1.5 * max(rtts, default=0))
        claims = [r.claim[1] + max(self.detection, r.detection) for r in gateways if r.claim]
        if claims:
            return max(claims) + wait
        if heard:
            return max(self.no_claim_since, self.standby_since) + wait
        missing = [r for r in gateways if not self.alive(r, now)]
        silent = max([r.heard_at for r in missing] + [self.started]) + self.detection
        return max(self.no_claim_since + wait, silent)

    def preferred(self, now):
        """A release names another successor, for a while."""
        return now < self.notes.get("others first until", float("-inf"))

    def better(self, remote, now):
        """A candidate that goes before me."""
        if not self.alive(remote, now) or remote.role in (MASTER, FAULT):
            return False
        if remote.says(MAINTENANCE) or remote.says(LEAVING):
            return False

        def key(settled, healthy, priority, name):
            return not settled, not healthy, -priority, name

        flags = self.flags(now)
        mine = key(flags & SETTLED, flags & HEALTHY, self.priority, self.name)
        theirs = key(remote.says(SETTLED), remote.says(HEALTHY), remote.body["priority"], remote.name)
        return theirs < mine

    def alive(self, remote, now):
        """Timely within my detection time."""
        return now - remote.timely_at < self.detection

    def win(self, now):
        """A new term is mine."""
        self.highest_term += 1
        self.term = self.highest_term
        self.answers.clear()
        self.extra.pop("yielded", None)
        self.become(MASTER, now)

    def become(self, role, now):
        """Takes a role and says so at once."""
        self.role = role
        if role == BACKUP:
            self.standby_since = self.no_claim_since = now
        self.beat(now)

    # Handover and release: section 9.

    def asked(self, remote, body):
        """The master wants to hand over to me."""
        if "request" not in body:
            self.answers.pop(remote.tag, None)
            return
        term, number, _ = body["request"]
        if body["role"] != (MASTER, term):
            return
        refusal = self.refuse_with or (7 if self.role != BACKUP else None)
        answer = {"refuse": (number, refusal)} if refusal else {"ready": number}
        known = self.answers.get(remote.tag)
        self.answers[remote.tag] = answer
        if known != answer:
            self.send(remote, time.monotonic())

    def honour(self, remote, term, successor, remaining_ms, _, now):
        """The old master says that it has left."""
        if (term in remote.honoured) or self.highest_term > term:
            return
        remote.honoured.add(term)
        remote.claim = None
        self.no_claim_since = now
        self.notes["release"] = (term, successor)
        if successor == self.tag and self.role == BACKUP:
            self.win(now)
        elif successor != NOBODY:
            self.notes["others first until"] = now + min(remaining_ms / 1e3, self.detection)

    def ask(self, name, timeout=20.0):
        """As master: asks a gateway to take over. `answered` does the rest."""
        with self.lock:
            self.handover_id += 1
            tag = wire.node_tag(self.cluster, name)
            self.handover = (tag, time.monotonic() + timeout)
            self.send(self.remotes[tag], time.monotonic())

    def answered(self, remote, body, now):
        """The successor said that it is ready, or why it is not."""
        if not self.handover or self.handover[0] != remote.tag:
            return
        if body.get("ready") == self.handover_id:
            self.handover = None
            self.leave(remote.tag, now)
        elif body.get("refuse", (None, 0))[0] == self.handover_id:
            self.handover = None
            self.notes["refused"] = body["refuse"][1]

    def leave(self, successor, now):
        """Gives the role up: `leaving`, effects off (there are none), release."""
        self.leaving = True
        self.beat(now)
        self.leaving = False
        now = time.monotonic()
        self.released = (self.term, successor, now + self.detection, now, set())
        self.become(BACKUP, now)
