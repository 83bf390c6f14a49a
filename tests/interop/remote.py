"""What a node knows of another one: sections 2 and 5 of docs/protocol.md."""

import collections

WINDOW = 64
REMEMBERED_SENT = 1024
REMEMBERED_ENDED = 32


class Remote:
    """What a node knows of another one, and what it says to it."""

    def __init__(self, tag, name, address, vote):
        self.tag, self.name, self.address, self.vote = tag, name, address, vote
        self.number = self.counter = 0
        self.sent = collections.OrderedDict()
        self.ended = collections.deque(maxlen=REMEMBERED_ENDED)
        self.answered_at = float("-inf")
        self.first_claim = None
        self.forget()

    def forget(self):
        """No session is established; what was of one is gone."""
        self.session = self.echo = self.obituary_hash = self.claim = self.body = None
        self.newest = self.seen = self.newest_number = 0
        self.timely_at = self.heard_at = float("-inf")
        self.release = None
        self.honoured = set()
        self.rtt = None

    def end(self):
        """The established session is over, for ever."""
        if self.session is not None:
            self.ended.append(self.session)
        self.forget()

    def is_new(self, counter):
        """RFC 6479: neither seen, nor too old to tell."""
        if counter > self.newest:
            return True
        behind = self.newest - counter
        return behind < WINDOW and not self.seen >> behind & 1

    def mark(self, counter):
        """Remembers a counter that `is_new`."""
        if counter > self.newest:
            ahead = min(counter - self.newest, WINDOW)
            self.seen = self.seen << ahead & (1 << WINDOW) - 1
            self.newest = counter
        self.seen |= 1 << self.newest - counter

    def says(self, flag):
        """A flag of its newest message."""
        return self.body is not None and bool(self.body["flags"] & flag)

    @property
    def role(self):
        """Its role as it last said."""
        return self.body["role"][0] if self.body else None

    @property
    def detection(self):
        """Its detection time in seconds."""
        interval, misses = self.body["timing"]
        return interval * misses / 1e6
