"""Keys, sealing and the fields of a heartbeat: sections 2, 3 and 4 of docs/protocol.md.

Written from that page alone, so that it proves the page, and not the Rust code twice.
"""

import base64
import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

MAGIC = b"WgHA"
VERSION = 1
HEADER = struct.Struct(">4sBBH8s8s8s16sQ12s")
"""magic, version, path, key id, cluster, sender and receiver tag, session, counter, nonce"""
NONCE_AT = 56
SHORTEST, LONGEST = 84, 1200
MAX_PATH = 7

GATEWAY, WITNESS = "gateway", "witness"


class Refused(Exception):
    """A datagram is refused; the text is the name of section 5."""


# Section 2: tags.


def len16(data):
    """Two bytes of length, then the bytes."""
    return struct.pack(">H", len(data)) + data


def cluster_tag(cluster):
    """The first 8 bytes of the cluster's hash."""
    return hashlib.sha256(b"wgha 1 cluster" + len16(cluster.encode())).digest()[:8]


def node_tag(cluster, name):
    """The first 8 bytes of the node's hash."""
    data = b"wgha 1 node" + len16(cluster.encode()) + len16(name.encode())
    return hashlib.sha256(data).digest()[:8]


# Section 3: keys and sealing.


class Keys:
    """A key file. `kind` is GATEWAY or WITNESS; `secrets` maps ids to 32 bytes; `first` seals."""

    def __init__(self, kind, secrets, first):
        self.kind, self.secrets, self.first = kind, secrets, first

    @classmethod
    def parse(cls, text):
        """Reads the text of a key file."""
        kinds, secrets = [], {}
        for line in text.splitlines():
            words = line.split("#")[0].split()
            if not words:
                continue
            kind, number, key = words
            secret = base64.b64decode(key, validate=True)
            number = int(number)
            if kind not in (GATEWAY, WITNESS) or len(secret) != 32 or number in secrets:
                raise ValueError("not a key file")
            kinds.append(kind)
            secrets[number] = secret
            if not 0 <= number <= 65535:
                raise ValueError("key id out of range")
        if len(set(kinds)) != 1:
            raise ValueError("all lines must be of one kind")
        return cls(kinds[0], secrets, next(iter(secrets)))

    def witness(self):
        """The keys of a witness, derived from those of a gateway."""
        votes = {number: vote_secret(secret) for number, secret in self.secrets.items()}
        return Keys(WITNESS, votes, self.first)

    def secret(self, number, vote):
        """The secret between two nodes. `vote`: either of them is a witness."""
        secret = self.secrets[number]
        return vote_secret(secret) if vote and self.kind == GATEWAY else secret


def prk(secret):
    """HKDF-Extract of RFC 5869."""
    return hmac.new(b"wgha 1", secret, hashlib.sha256).digest()


def expand(secret, info, length):
    """HKDF-Expand of RFC 5869 over `prk(secret)`."""
    return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(prk(secret))


def vote_secret(secret):
    """What a witness holds instead of a gateway's secret."""
    return expand(secret, b"vote", 32)


def session_keys(secret, cluster, session, sender, receiver):
    """(body key, nonce key) of one session in one direction."""
    names = len16(sender.encode()) + len16(receiver.encode())
    info = b"heartbeat" + len16(cluster.encode()) + session + names
    okm = expand(secret, info, 64)
    return okm[:32], okm[32:]


def synthetic_nonce(nonce_key, head, plaintext):
    """The nonce that belongs to these bytes; `head` is the datagram up to the nonce."""
    return hmac.new(nonce_key, head + plaintext, hashlib.sha256).digest()[:12]


def seal(keys, head, plaintext, nonce=None):
    """A datagram of its first 56 bytes and its body. `nonce` is given only to make a wrong one."""
    body_key, nonce_key = keys
    aad = head + (nonce or synthetic_nonce(nonce_key, head, plaintext))
    return aad + ChaCha20Poly1305(body_key).encrypt(aad[NONCE_AT:], plaintext, aad)


def unseal(keys, datagram):
    """The body of a datagram, if it is authentic and its nonce the right one."""
    body_key, nonce_key = keys
    aad, sealed = datagram[: HEADER.size], datagram[HEADER.size :]
    try:
        plaintext = ChaCha20Poly1305(body_key).decrypt(aad[NONCE_AT:], sealed, aad)
    except InvalidTag:
        raise Refused("seal") from None
    if synthetic_nonce(nonce_key, aad[:NONCE_AT], plaintext) != aad[NONCE_AT:]:
        raise Refused("nonce")
    return plaintext


# Section 4: the body. A field is a name and the names and formats of its parts.

ROLES = ("init", "backup", "master", "fault")
HEALTHY, MAINTENANCE, READY, LEAVING, SETTLED = 1, 2, 4, 8, 16

FIELDS = {
    1: ("number", "Q", ("number",)),
    2: ("echo", "16sQI", ("session", "number", "age_us")),
    3: ("role", "BQ", ("role", "term")),
    4: ("priority", "B", ("priority",)),
    5: ("flags", "B", ("flags",)),
    6: ("timing", "IB", ("interval_us", "misses")),
    7: ("fingerprint", "16s", ("fingerprint",)),
    8: ("wireguard", "B", ("wireguard",)),
    9: ("clock", "Qq", ("sent_ns", "wall_ns")),
    10: ("hears", "8sQI", ("node", "term", "age_ms")),
    11: ("evidence", "BI", ("kind", "age_ms")),
    12: ("obituary_hash", "32s", ("hash",)),
    13: ("health_pass", "I", ("age_ms",)),
    14: ("highest_term", "Q", ("term",)),
    15: ("release", "Q8sII", ("term", "successor", "remaining_ms", "sequence")),
    16: ("request", "QIB", ("term", "id", "flags")),
    17: ("ready", "I", ("id",)),
    18: ("refuse", "IB", ("id", "reason")),
    19: ("yielded", "QI", ("term", "ago_ms")),
    20: ("goodbye", "", ()),
    21: ("duplicate_name", "", ()),
    22: ("obituary", "8s16s32s", ("node", "session", "secret")),
    23: ("loss", "B", ("lost",)),
    24: ("paths_heard", "B", ("bits",)),
    32: ("ask", "Q16sQ", ("term", "session", "old_term")),
    33: ("grant", "8s16sQIQ", ("node", "session", "term", "duration_ms", "ask")),
    34: ("refused", "QI", ("term", "remaining_ms")),
    35: ("withdraw", "Q", ("term",)),
    36: ("held", "QI", ("term", "remaining_ms")),
    37: ("voters", "16s", ("hash",)),
    38: ("pending", "16s", ("hash",)),
}
SHORT_ASK = "Q"
"""The first field of an ask that is no transfer; then its value is a tuple of one."""
TYPES = {name: number for number, (name, _, _) in FIELDS.items()}
REQUIRED = (
    *("number", "role", "priority", "flags", "timing", "fingerprint", "wireguard", "clock"),
    *("evidence", "obituary_hash", "highest_term", "paths_heard"),
)
HANDOVER = ("request", "ready", "refuse")
TERM_FIRST = ("release", "request", "yielded", "ask", "refused", "held")


def encode(body):
    """The bytes of a body: a dict from field names to their values, a tuple if there are several."""
    out = bytearray()
    for name, value in sorted(body.items(), key=lambda item: TYPES[item[0]]):
        _, form, parts = FIELDS[TYPES[name]]
        values = value if len(parts) > 1 else (value,) if parts else ()
        form = SHORT_ASK if name == "ask" and len(values) == 1 else form
        data = struct.pack(">" + form, *values)
        out += bytes((TYPES[name], len(data))) + data
    return bytes(out)


def decode(data):
    """The dict of a body; raises Refused("malformed") as section 4 says."""
    body, at = {}, 0
    while at < len(data):
        if at + 2 > len(data):
            raise Refused("malformed")
        kind, length = data[at], data[at + 1]
        value = data[at + 2 : at + 2 + length]
        at += 2 + length
        if len(value) != length:
            raise Refused("malformed")
        if kind not in FIELDS:
            continue
        name, form, parts = FIELDS[kind]
        form = SHORT_ASK if name == "ask" and length == 8 else form
        if name in body or length != struct.calcsize(">" + form):
            raise Refused("malformed")
        values = struct.unpack(">" + form, value)
        body[name] = values if len(parts) > 1 else values[0] if parts else True
    if not valid(body):
        raise Refused("malformed")
    return body


def valid(body):
    """Required fields are there, and every value is one that section 4 permits."""
    if any(name not in body for name in REQUIRED):
        return False
    (role, term), (interval, misses) = body["role"], body["timing"]
    checks = (
        role < len(ROLES) and (term != 0) == (role == ROLES.index("master")),
        10_000 <= interval <= 10_000_000 and misses >= 2,
        body["wireguard"] <= 2 and body["evidence"][0] <= 2,
        body.get("loss", 0) <= 64,
        sum(name in body for name in HANDOVER) <= 1,
        all(body[name][0] != 0 for name in TERM_FIRST if name in body),
        body.get("withdraw", 1) != 0 and body.get("ask", (1,))[-1] != 0,
        "grant" not in body or body["grant"][2] != 0 and body["grant"][4] != 0,
        body["number"] >= 1,
    )
    return all(checks)
