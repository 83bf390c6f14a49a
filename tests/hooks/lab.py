"""The fake cloud for the lab of crate netns-lab: served to both gateways, and obeyed by the router.

The first line on standard input says what to make, the others are orders; each is an object of JSON and gets one as answer. Ends with
its input. Needs nothing but Python.

    {"hook": "aws-eip", "address": "203.0.113.100", "router": NETNS, "port": "eth0",
     "gateways": [{"name": "gw1", "net": NETNS, "address": "203.0.113.11", "mac": MAC}, {"name": "gw2", ...}]}

NETNS is a path. What comes to the address reaches the gateway that has it in the cloud, and nothing leaves from it but what that gateway sends.
"""

import json
import os
import subprocess
import sys
import threading
import time

import fake.aws
import fake.gcp
from fake.aws import AwsEip, AwsRoute
from fake.cloud import listen
from fake.gcp import GcpRoute
from fake.hetzner import Hetzner
from namespace import CLONE_NEWNET, checked, in_thread, libc
from rig import API

CLOUDS = {cloud.hook: cloud for cloud in (AwsEip, AwsRoute, GcpRoute, Hetzner)}
# Of these the address is at the cloud's edge and translated; of the others it is the gateway's own, or one that is routed to it.
TRANSLATED = ("aws-eip",)
EVERY_SECONDS = 0.01


class Place:
    """A network namespace of the lab."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def call(self, function):
        def inside():
            checked(libc.setns(self.fd, CLONE_NEWNET))
            return function()

        return in_thread(inside)

    def feed(self, text, *command):
        self.call(lambda: subprocess.run(command, input=text, text=True, check=True))


class Site:
    """A cloud with its gateways and its router."""

    def __init__(self, order):
        fake.aws.DESTINATION = fake.gcp.DESTINATION = f"{order['address']}/32"
        self.cloud = CLOUDS[order["hook"]]()
        self.address, self.port = order["address"], order["port"]
        self.gateways = dict(zip("ab", order["gateways"]))
        self.names = {letter: gateway["name"] for letter, gateway in self.gateways.items()}
        self.letters = {name: letter for letter, name in self.names.items()}
        self.unreachable = set()
        self.router = Place(order["router"])
        self.led = "nowhere yet"
        self.failed = None
        for letter, gateway in self.gateways.items():
            place = Place(gateway["net"])
            place.feed(f"address add {self.cloud.metadata_address}/32 dev lo\n", "ip", "-batch", "-")
            for where, serve in ((API, self.serve), ((self.cloud.metadata_address, 80), self.cloud.serve_metadata)):
                listen(lambda place=place, where=where: place.call(lambda: socket(where)), serve, letter)
        self.lead(None)
        threading.Thread(target=self.follow, daemon=True).start()

    def serve(self, request):
        """As the cloud does; what a gateway without a way to the API sends is lost, and its connections hang."""
        waiting = self.cloud.waiting
        while self.names[request.node] in self.unreachable:
            if waiting.wait(0.05):
                return None
        return self.cloud.serve(request)

    def owner(self):
        with self.cloud.lock:
            self.cloud.advance()
            return self.cloud.owner()

    def follow(self):
        try:
            while True:
                owner = self.owner()
                if owner != self.led:
                    self.lead(owner)
                time.sleep(EVERY_SECONDS)
        except Exception as error:
            self.failed = f"the router does not follow: {error}"
            raise

    def lead(self, owner):
        """The router's rules and route for the address, all at once."""
        gateway = self.gateways.get(owner)
        translated = self.cloud.hook in TRANSLATED
        self.router.feed(self.translation(gateway) if translated else self.sources(gateway), "nft", "-f", "-")
        if not translated:
            hop = f"via {gateway['address']} dev {self.port}" if gateway else ""
            self.router.feed(f"route replace {'' if gateway else 'blackhole '}{self.address}/32 {hop}\n", "ip", "-batch", "-")
        self.led = owner

    def translation(self, gateway):
        """Stateless, as the cloud's edge does it: no flow sticks to the gateway that had it. Who has no public address reaches nobody."""
        own = ", ".join(each["address"] for each in self.gateways.values())
        inward = f"ip daddr {self.address} ip daddr set {gateway['address']}" if gateway else f"ip daddr {self.address} drop"
        outward = f'oifname != "{self.port}" ip saddr {gateway["address"]} ip saddr set {self.address}' if gateway else ""
        return table(
            f'chain inward {{ type filter hook prerouting priority -300; iifname != "{self.port}" {inward}; }}\n'
            f"chain outward {{ type filter hook postrouting priority 300; {outward};\n"
            f'oifname != "{self.port}" ip saddr {{ {own} }} drop; }}\n'
        )

    def sources(self, gateway):
        """A cloud lets only the machine that has an address send from it."""
        other = f"ether saddr != {gateway['mac']} " if gateway else ""
        return table(
            f'chain outward {{ type filter hook prerouting priority -300; iifname "{self.port}" ip saddr {self.address} {other}drop; }}\n'
        )

    # Orders.
    def do_look(self, _):
        """Who has it, where the router leads, and the number of calls."""
        with self.cloud.lock:
            return {"owner": self.names.get(self.owner(), self.owner()), "led": self.names.get(self.led, self.led), "calls": len(self.cloud.calls)}

    def do_calls(self, order):
        """The calls from number `from` on: of whom, kind, what, status."""
        with self.cloud.lock:
            return {"calls": [[self.names[node], *rest] for node, *rest in self.cloud.calls[order["from"]:]]}

    def do_give(self, order):
        """To a gateway, to something else ("x"), or to nobody (null)."""
        with self.cloud.lock:
            to = order["to"]
            self.cloud.apply(lambda _: self.cloud.give(self.letters.get(to, to)))

    def do_fault(self, order):
        """Fails so many calls in one way; see fake/cloud.py."""
        with self.cloud.lock:
            self.cloud.fault(order["kind"], order.get("times", 1), order.get("only", "any"))

    def do_set(self, order):
        """Attributes of Cloud."""
        with self.cloud.lock:
            for key, value in order["values"].items():
                if not hasattr(self.cloud, key):
                    raise KeyError(key)
                setattr(self.cloud, key, value)

    def do_unreachable(self, order):
        """The API, for these gateways."""
        self.unreachable = set(order["gateways"])

    def do_heal(self, _):
        """Ends all faults, and all that hangs."""
        with self.cloud.lock:
            self.unreachable = set()
            self.cloud.heal()
            self.cloud.stale_reads = self.cloud.stale_after_change = self.cloud.operation_fails = 0
            self.cloud.operation_seconds = 0.0
            self.cloud.credentials_good = self.cloud.metadata_works = True

    def obey(self, order):
        answer = getattr(self, f"do_{order['do']}")(order) or {}
        return {"error": self.failed} if self.failed else answer


def socket(where):
    import socket as sockets

    return sockets.create_server(where, backlog=64)


def table(chains):
    """A table that replaces the one before."""
    return f"table ip cloud {{}}\ndelete table ip cloud\ntable ip cloud {{\n{chains}}}\n"


def main():
    site = None
    for line in sys.stdin:
        try:
            if site is None:
                site = Site(json.loads(line))
                config = {"endpoint": f"http://{API[0]}:{API[1]}{site.cloud.base}", **site.cloud.config()}
                answer = {"config": "".join(f"{key} = {value}\n" for key, value in config.items())}
            else:
                answer = site.obey(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
