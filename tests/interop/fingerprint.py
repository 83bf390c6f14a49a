"""The fingerprint of configs without floating IPs and WireGuard: section 4 of docs/protocol.md."""

import hashlib

HANDOVER_TIMEOUT_S = 0.5
"""The default of the config."""


def number(value):
    """Eight bytes."""
    return value.to_bytes(8, "big")


def text(value):
    """Length and bytes."""
    return number(len(value.encode())) + value.encode()


def duration(seconds):
    """Nanoseconds in 16 bytes."""
    return round(seconds * 1e9).to_bytes(16, "big")


def of(cluster, timing, nodes, addresses, witness):
    """The fingerprint of (interval in seconds, misses), nodes and addresses as in `daemon.Rig`."""
    interval, misses = timing
    first = text("wgha config fingerprint 1: cluster") + text(cluster)
    first += duration(interval) + number(misses)
    # preempt, preempt_delay, handover_timeout
    first += number(0) + duration(0) + duration(HANDOVER_TIMEOUT_S)
    first += number(len(nodes))
    for name, options in sorted(nodes.items()):
        host, port = addresses[name]
        first += text(name) + number(options["priority"]) + number(options["witness"])
        first += number(1) + text(f"{host}:{port}")
    first += number(0)
    # No tunnels with their sources, no wg0.conf.
    second = text("wgha config fingerprint 1: wireguard") + number(0) + number(0)
    second = bytes(8) if witness else hashlib.sha256(second).digest()[:8]
    return hashlib.sha256(first).digest()[:8] + second
