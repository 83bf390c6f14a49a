"""proto/vectors holds what section 2 to 4 of docs/protocol.md say."""

import json
import pathlib
import unittest

import wire

VECTORS = pathlib.Path(__file__).parents[2] / "proto" / "vectors"
ROLES = ("init", "backup", "master", "fault")
EVIDENCE = ("nosource", "answered", "unanswered")
WIREGUARD = ("none", "kernel", "embedded")
FLAGS = ("healthy", "maintenance", "ready", "leaving", "settled")


def load(name):
    """One file of vectors."""
    with open(VECTORS / name, encoding="utf-8") as file:
        return json.load(file)


def plain(value):
    """Bytes as hex, as JSON has them."""
    return value.hex() if isinstance(value, bytes) else value


def parts(body, name):
    """A field with several parts as a JSON object, or null."""
    if name not in body:
        return None
    _, _, keys = wire.FIELDS[wire.TYPES[name]]
    values = body[name] if len(keys) > 1 else (body[name],)
    return dict(zip(keys, map(plain, values), strict=True))


def handover(body):
    """Request, ready or refuse, as JSON."""
    for name in wire.HANDOVER:
        if name in body:
            value = parts(body, name)
            if name == "request":
                flags = value.pop("flags")
                value |= {"force": bool(flags & 1), "manual": bool(flags & 2)}
            return {name: value}
    return None


def lease(body):
    """The fields of leases, or None if there are none."""
    if not any(kind >= 32 and name in body for kind, (name, _, _) in wire.FIELDS.items()):
        return None
    ask = dict(zip(("term", "session", "old"), map(plain, body.get("ask", ())), strict=False))
    transfer = {"session": ask["session"], "term": ask["old"]} if "session" in ask else None
    return {
        "ask": {"term": ask["term"], "transfer": transfer} if ask else None,
        "grant": parts(body, "grant"),
        "refuse": parts(body, "refused"),
        "withdraw": body.get("withdraw"),
        "held": parts(body, "held"),
        "voters": plain(body.get("voters")),
        "pending": plain(body.get("pending")),
    }


def as_json(body):
    """A body in the form of the vectors."""
    leases = lease(body)
    return ordinary(body) | ({"lease": leases} if leases else {})


def ordinary(body):
    """Everything but the fields of leases."""
    interval, misses = body["timing"]
    role, term = body["role"]
    evidence = parts(body, "evidence")
    evidence["kind"] = EVIDENCE[evidence["kind"]]
    return {
        "clock": parts(body, "clock"),
        "duplicate_name": "duplicate_name" in body,
        "echo": parts(body, "echo"),
        "evidence": evidence,
        "fingerprint": plain(body["fingerprint"]),
        "flags": {name: bool(body["flags"] >> bit & 1) for bit, name in enumerate(FLAGS)},
        "goodbye": "goodbye" in body,
        "handover": handover(body),
        "health_pass_ms": body.get("health_pass"),
        "hears": parts(body, "hears"),
        "highest_term": body["highest_term"],
        "interval_us": interval,
        "loss": body.get("loss"),
        "misses": misses,
        "number": body["number"],
        "obituary": parts(body, "obituary"),
        "obituary_hash": plain(body["obituary_hash"]),
        "paths_heard": body["paths_heard"],
        "priority": body["priority"],
        "release": parts(body, "release"),
        "role": ROLES[role],
        "term": term,
        "wireguard": WIREGUARD[body["wireguard"]],
        "yielded": parts(body, "yielded"),
    }


class Vectors(unittest.TestCase):
    """Each vector, made and read."""

    def test_keys(self):
        """Tags, and everything that is derived from a key file."""
        vector = load("keys.json")
        cluster = vector["cluster"]
        keys = wire.Keys.parse(vector["gateway_file"])
        self.assertEqual(wire.cluster_tag(cluster).hex(), vector["cluster_tag"])
        self.assertTrue(vector["node_tags"])
        for name, tag in vector["node_tags"].items():
            self.assertEqual(wire.node_tag(cluster, name).hex(), tag)
        witness = wire.Keys.parse(vector["witness_file"])
        self.assertEqual(keys.witness().secrets, witness.secrets)
        self.assertEqual((keys.kind, witness.kind), (wire.GATEWAY, wire.WITNESS))
        heartbeat = vector["heartbeat"]
        secret = keys.secret(heartbeat["key"], vote=False)
        self.assertEqual(secret.hex(), heartbeat["secret"])
        session = bytes.fromhex(heartbeat["session"])
        names = heartbeat["sender"], heartbeat["receiver"]
        body_key, nonce_key = wire.session_keys(secret, cluster, session, *names)
        self.assertEqual(body_key.hex(), heartbeat["body_key"])
        self.assertEqual(nonce_key.hex(), heartbeat["nonce_key"])

    def test_heartbeats(self):
        """Each datagram opens to its fields, and is made again from them to the last byte."""
        vectors = load("heartbeat.json")
        self.assertGreaterEqual(len(vectors), 5)
        for vector in vectors:
            with self.subTest(vector["case"]):
                self.check(vector)

    def test_leases(self):
        """The same with the fields of leases."""
        vectors = load("lease.json")
        self.assertGreaterEqual(len(vectors), 3)
        for vector in vectors:
            with self.subTest(vector["case"]):
                self.check(vector)

    def check(self, vector):
        """One datagram."""
        datagram = bytes.fromhex(vector["datagram"])
        cluster, header = vector["cluster"], vector["header"]
        sender, receiver = vector["sender"], vector["receiver"]
        session = bytes.fromhex(header["session"])
        head = wire.HEADER.pack(
            *(b"WgHA", 1, header["path"], header["key"], wire.cluster_tag(cluster)),
            *(wire.node_tag(cluster, sender), wire.node_tag(cluster, receiver)),
            *(session, header["counter"], bytes(12)),
        )[: wire.NONCE_AT]
        keys = wire.Keys.parse(vector["key_file"])
        secret = keys.secret(header["key"], vector["witness_key"])
        derived = wire.session_keys(secret, cluster, session, sender, receiver)
        plaintext = wire.unseal(derived, datagram)
        self.assertEqual(plaintext.hex(), vector["plaintext"])
        body = wire.decode(plaintext)
        self.assertEqual(as_json(body), vector["body"])
        self.assertEqual(wire.encode(body), plaintext)
        self.assertEqual(wire.seal(derived, head, plaintext), datagram)

    def test_every_flipped_bit_is_refused(self):
        """What the page says of sealing leaves no byte of a datagram that could be changed."""
        vector = load("heartbeat.json")[0]
        datagram = bytes.fromhex(vector["datagram"])
        secret = wire.Keys.parse(vector["key_file"]).secret(vector["header"]["key"], False)
        session = bytes.fromhex(vector["header"]["session"])
        names = vector["sender"], vector["receiver"]
        derived = wire.session_keys(secret, vector["cluster"], session, *names)
        for bit in range(len(datagram) * 8):
            changed = bytearray(datagram)
            changed[bit // 8] ^= 1 << bit % 8
            with self.assertRaises(wire.Refused):
                wire.unseal(derived, bytes(changed))


if __name__ == "__main__":
    unittest.main()
