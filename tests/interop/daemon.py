"""A real `wgha run` on the loopback, and what its command line says of it."""

import json
import os
import signal
import subprocess
import tempfile
import time

import fingerprint
import wire
from node import Node

WGHA = os.environ["WGHA_BIN"]
PATIENCE_S = 60
"""No test waits longer for one thing; all of them normally take well below a second."""

PORT = 10_000 + os.getpid() % 20_000
"""Below the ephemeral ports, and with `Rig.net` unlike that of any other process."""

CLUSTER = "edge"
INTERVAL_S, MISSES = TIMING = 0.1, 10
"""A second of silence: on a busy machine a healthy node is sometimes late by half of that."""


class Failed(AssertionError):
    """Something did not happen in time."""


def until(what, condition):
    """Waits until `condition` is true and returns what it says."""
    end = time.monotonic() + PATIENCE_S
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"still not so after {PATIENCE_S} s: {what}")
        time.sleep(0.01)


class Rig:
    """A cluster of nodes {name: {"priority": n, "witness": bool}} in a directory of its own."""

    net = 0

    def __init__(self, nodes):
        Rig.net += 1
        self.directory = tempfile.TemporaryDirectory(prefix="wgha-interop-")
        self.nodes = {
            name: {"priority": 100, "witness": False, **options} for name, options in nodes.items()
        }
        self.addresses = {}
        for index, name in enumerate(nodes, 1):
            half = os.getpid() // 20_000 % 64
            self.addresses[name] = (f"127.{128 + half}.{Rig.net}.{index}", PORT)
        self.daemons, self.peers = {}, []
        self.key_file = self.path("gateway.key")
        subprocess.run([WGHA, "keygen", "--out", self.key_file], check=True)
        with open(self.key_file, encoding="ascii") as file:
            self.keys = wire.Keys.parse(file.read())

    def path(self, name):
        """A file of this cluster."""
        return os.path.join(self.directory.name, name)

    def config(self, name):
        """Writes the config of a daemon and returns its path."""
        lines = [
            "[cluster]",
            f'name = "{CLUSTER}"',
            f'key_file = "{self.key_file}"',
            f'heartbeat = "{INTERVAL_S * 1000:.0f}ms"',
            f"misses = {MISSES}",
            # The second implementation has no leases.
            'quorum = "none"',
            f'state_dir = "{self.path(name + ".state")}"',
            "[control]",
            f'socket = "{self.path(name + ".sock")}"',
        ]
        for node, options in self.nodes.items():
            host, port = self.addresses[node]
            lines += ["[[node]]", f'name = "{node}"', f'addresses = ["{host}:{port}"]']
            lines += [f"priority = {options['priority']}"]
            lines += [f"witness = {str(options['witness']).lower()}"]
        path = self.path(f"{name}.toml")
        with open(path, "w", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
        return path

    def daemon(self, name):
        """Starts `wgha run` as a node."""
        self.daemons[name] = Daemon(self, name)
        return self.daemons[name]

    def peer(self, name, **options):
        """Starts the second implementation as a node."""
        mine = self.nodes[name]
        witness = mine["witness"]
        others = {
            node: (self.addresses[node], self.nodes[node]["witness"])
            for node in self.nodes
            if node != name
        }
        options = {
            "priority": mine["priority"],
            "witness": witness,
            "interval": INTERVAL_S,
            "misses": MISSES,
            "fingerprint": fingerprint.of(CLUSTER, TIMING, self.nodes, self.addresses, witness),
            "bind": self.addresses[name],
            "keys": self.keys.witness() if witness else self.keys,
            **options,
        }
        bind, keys = options.pop("bind"), options.pop("keys")
        node = Node(CLUSTER, name, bind, keys, others, **options)
        self.peers.append(node)
        node.thread.start()
        return node

    def close(self):
        """Ends everything; says what daemons wrote if asked by a failure."""
        for peer in self.peers:
            peer.close()
        for daemon in self.daemons.values():
            daemon.kill()
        self.directory.cleanup()

    def logs(self):
        """What the daemons wrote."""
        parts = []
        for name in self.daemons:
            with open(self.path(f"{name}.log"), encoding="utf-8") as file:
                parts.append(f"--- {name}\n{file.read()}")
        return "\n".join(parts)


class Daemon:
    """One process of `wgha run`."""

    def __init__(self, rig, name):
        self.name, self.config = name, rig.config(name)
        with open(rig.path(f"{name}.log"), "a", encoding="utf-8") as log:
            command = [WGHA, "run", "--config", self.config, "--node", name]
            # A session of its own: worker and guard can be killed together.
            self.process = subprocess.Popen(
                command, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def wgha(self, *args):
        """A command for the daemon: (exit code, standard output and error)."""
        command = [WGHA, *args, "--config", self.config]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    def status(self):
        """`wgha status --json`, or nothing while the daemon does not answer."""
        code, text = self.wgha("status", "--json")
        return json.loads(text) if code == 0 else None

    def node(self, name):
        """What it says of a node, or nothing."""
        status = self.status()
        return status and next(node for node in status["nodes"] if node["name"] == name)

    def role(self):
        """Its role, or nothing."""
        status = self.status()
        return status and status["role"]

    def refused(self, word):
        """How often it refused a datagram for this reason."""
        return self.status()["refusals"][word]

    def terminate(self):
        """A clean stop; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self):
        """A crash of the worker and of its guard."""
        if self.process.poll() is None:
            worker = self.worker()
            os.killpg(self.process.pid, signal.SIGKILL)
            until("the worker is dead", lambda: not lives(worker))
        self.process.wait(timeout=60)

    def kill_worker(self):
        """A crash of the worker; its guard lives."""
        os.kill(self.worker(), signal.SIGKILL)

    def worker(self):
        """The worker's process id."""
        pid = self.process.pid
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            (worker,) = file.read().split()
        return int(worker)


def lives(pid):
    """Whether a process runs: a zombie does not, once its last thread has let go of everything."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(") ", 1)[1].split(" ")
            return fields[0] != "Z" or fields[17] not in ("0", "1")
    except FileNotFoundError:
        return False
