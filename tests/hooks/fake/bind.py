"""A real bind9 with TSIG, and between it and the nodes a relay that can fail as the clouds do."""

import shutil
import socket
import socketserver
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from .cloud import SLOW_SECONDS, Answer, Cloud

ZONE, NAME, WILD = "example.test", "vpn.example.test", "vpn.wild.example.test"
ADDRESSES = {"a": "192.0.2.1", "b": "192.0.2.2", "x": "192.0.2.99"}
NODES = {address: node for node, address in ADDRESSES.items()}
SECRETS = {"wgha-key": "d2doYS10ZXN0LWtleS1vZi0zMi1ieXRlcy1sb25nISE=", "other-key": "b3RoZXItdGVzdC1rZXktMzItYnl0ZXMtbG9uZyEhISE="}
UPDATE = 5  # the opcode, RFC 2136 1.3
SERVFAIL, NOTAUTH = 2, 9
BADTIME = 18
TSIG, ANY = 250, 255
CONF = """
options {{
    directory "{directory}"; pid-file none; session-keyfile "{directory}/session.key"; managed-keys-directory "{directory}";
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; dnssec-validation no; notify no;
}};
controls {{ }};
{keys}
zone "{zone}" {{
    type primary; file "{zone}.db";
    update-policy {{ grant wgha-key name {name}. A AAAA; grant wgha-key name {wild}. A AAAA; }};
}};
"""
ZONE_FILE = """$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 1
@ NS ns
ns A 192.0.2.53
fixed A 192.0.2.53
alias CNAME fixed
*.wild A 192.0.2.80
"""


class Bind(Cloud):
    hook = "rfc2136-dns"
    asynchronous = False

    def __init__(self):
        super().__init__()
        for program in ("named", "nsupdate", "dig"):
            if not shutil.which(program, path="/usr/sbin:/usr/bin"):
                raise AssertionError(f"there is no {program}: apt-get install bind9 bind9-dnsutils")
        self.directory = Path(tempfile.mkdtemp(prefix="wgha-bind-"))
        self.port = free_port()
        self.named = None
        self.clock_is_wrong = False
        self.before_update = None  # called once before an update goes on: a race
        for name, secret in SECRETS.items():
            self.key_file(name, secret)
        (self.directory / f"{ZONE}.db").write_text(ZONE_FILE)
        keys = "\n".join((self.directory / f"{name}.key").read_text() for name in SECRETS)
        (self.directory / "named.conf").write_text(CONF.format(directory=self.directory, port=self.port, keys=keys, zone=ZONE, name=NAME, wild=WILD))
        self.begin()

    def key_file(self, name, secret, file=None):
        path = self.directory / f"{file or name}.key"
        path.write_text(f'key "{name}" {{ algorithm hmac-sha256; secret "{secret}"; }};\n')
        path.chmod(0o600)
        return path

    def begin(self):
        self.named = subprocess.Popen(
            ["/usr/sbin/named", "-g", "-n", "1", "-c", self.directory / "named.conf"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(self.directory / "log").open("w"),
        )  # fmt: skip
        for _ in range(200):
            if self.dig("fixed.example.test", wait=1):
                return
            time.sleep(0.05)
        self.end()
        raise AssertionError((self.directory / "log").read_text())

    def end(self):
        if self.named:
            self.named.kill()
            self.named.wait()
            self.named = None

    def close(self):
        self.end()
        shutil.rmtree(self.directory)

    # What is asked of every cloud.
    def config(self):
        return {
            "server": "127.0.0.1", "port": 5300, "zone": ZONE, "name": NAME, "endpoint": None,
            "addresses": " ".join(f"{n}={a}" for n, a in ADDRESSES.items()), "key_file": self.directory / "wgha-key.key",
        }  # fmt: skip

    def secrets(self):
        return [SECRETS["wgha-key"]]

    def wrong_config(self):
        return {"zone": "example.invalid", "name": "vpn.example.invalid"}

    def records(self, kind="A"):
        return self.dig(NAME, kind)

    def owner(self):
        found = self.records()
        return NODES.get(found[0]) if len(found) == 1 else None

    def give(self, node):
        self.set(*([ADDRESSES[node]] if node else []))

    def set(self, *addresses, kind="A"):
        lines = [f"update delete {NAME}. {kind}"] + [f"update add {NAME}. 60 {kind} {address}" for address in addresses]
        self.nsupdate(*lines)

    def nsupdate(self, *lines):
        text = "\n".join([f"server 127.0.0.1 {self.port}", f"zone {ZONE}.", *lines, "send", ""])
        subprocess.run(["nsupdate", "-k", self.directory / "wgha-key.key", "-t", "5"], input=text, text=True, check=True)

    def dig(self, name, kind="A", wait=5):
        command = ["dig", "@127.0.0.1", "-p", str(self.port), "+short", f"+time={wait}", "+tries=1", name, kind]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        return answer.stdout.split() if answer.returncode == 0 else []

    def serial(self):
        return self.dig(ZONE, "SOA")[2]

    def metadata(self, request):
        return Answer(404, "not found")

    # The relay.
    def relay(self, node, query):
        """The answer to a datagram, or None."""
        kind = "change" if len(query) > 12 and query[2] >> 3 & 15 == UPDATE else "read"
        with self.lock:
            fault = next((f for f in self.faults if f.times > 0 and f.only in ("any", kind)), None)
            if fault:
                fault.times -= 1
            race, self.before_update = (self.before_update, None) if kind == "change" else (None, self.before_update)
            self.calls.append((node, kind, kind, fault.kind if fault else 0))
        if race:
            race()
        if self.clock_is_wrong:
            return bad_time(query)
        if fault is None or fault.kind == "slow":
            answer = self.forward(query)
            time.sleep(SLOW_SECONDS if fault else 0)
            return answer
        if fault.kind == "cut":
            return (self.forward(query) or b"")[:20]
        if fault.kind == "garbage":
            return b"It works!"
        if fault.kind == "empty":
            return b""
        if fault.kind == "error":
            return query[:2] + bytes((query[2] | 0x80, SERVFAIL)) + bytes(8)
        if fault.kind == "hang":
            self.waiting.wait(60)
        return None

    def forward(self, query):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect(("127.0.0.1", self.port))
            try:
                sock.send(query)
                return sock.recv(65535)
            except OSError:
                return None

    def listen(self, namespace, node):
        """Relays from port 5300 in the namespace. The server is to be shut down."""
        cloud = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                query, sock = self.request
                answer = cloud.relay(node, query)
                if answer is not None:
                    sock.sendto(answer, self.client_address)

        class Server(socketserver.ThreadingUDPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # a hook that was killed

        server = Server(("", 0), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = namespace.call(bound)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return server


def bad_time(query):
    """What a server says whose clock is minutes away: NOTAUTH, and in the TSIG record why (RFC 8945 5.2.3)."""

    def wire(name):
        return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"

    question = query[12 : query.index(b"\0", 12) + 5]
    now = int(time.time() + 1200).to_bytes(6, "big")
    data = wire("hmac-sha256") + now + struct.pack("!HHHHH", 300, 0, int.from_bytes(query[:2], "big"), BADTIME, 6) + now
    record = wire("wgha-key") + struct.pack("!HHIH", TSIG, ANY, 0, len(data)) + data
    return query[:2] + bytes((query[2] | 0x80, NOTAUTH)) + struct.pack("!HHHH", 1, 0, 0, 1) + question + record


def bound():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 5300))
    return sock


def free_port():
    """A port that is free for UDP and TCP."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return tcp.getsockname()[1]
