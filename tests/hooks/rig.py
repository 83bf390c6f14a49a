"""Two nodes, each in a network namespace of its own, before one fake cloud; and the hooks, run as the daemon runs them."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fake.cloud import listen
from namespace import Namespace

HOOKS = Path(__file__).resolve().parents[2] / "dist" / "hooks"
API = ("127.0.0.1", 8000)
TERM = 7


@dataclass
class Result:
    """How a run of a hook ended."""

    code: int
    said: str
    seconds: float


class Run:
    """A hook that is running."""

    def __init__(self, command, environment):
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )

    def result(self, within=30):
        try:
            said, _ = self.process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            self.kill()
            said = f"(the test waited {within} s)"
        return Result(self.process.returncode, said.rstrip("\n"), time.monotonic() - self.began)

    def kill(self):
        """As the daemon does it: the whole process group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def arguments(self):
        """What anyone on the machine can see of it and of all that it has started."""
        seen = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if os.getpgid(int(directory.name)) == self.process.pid:
                    seen.append((directory / "cmdline").read_bytes().decode(errors="replace").replace("\0", " "))
            except (OSError, ProcessLookupError):
                pass
        return seen


class Rig:
    """The nodes "a" and "b" with their metadata services, and a cloud (fake.cloud.Cloud)."""

    def __init__(self, cloud, addresses=()):
        self.cloud = cloud
        self.directory = Path(tempfile.mkdtemp(prefix="wgha-hooks-"))
        self.hooks = HOOKS
        self.nodes = {}
        self.path = os.environ["PATH"]
        self.servers = []
        for node in ("a", "b"):
            space = self.nodes[node] = Namespace(f"{cloud.metadata_address}/32", *addresses)
            self.listen(node, API, cloud.serve)
            self.listen(node, (cloud.metadata_address, 80), cloud.serve_metadata)
            (self.directory / node / "cache").mkdir(parents=True, mode=0o700)
            # Saves 25 ms in every run. Who wants to see the look at curl's and jq's versions calls forget().
            (self.directory / node / "cache" / "all.tools").write_text("0 ok\n")
            assert space.fd is not None
        self.master("a")

    def listen(self, node, where, serve):
        self.servers.append(listen(lambda: self.nodes[node].listening(*where), serve, node))

    def close(self):
        self.cloud.waiting.set()
        for server in self.servers:
            server.close()
        for space in self.nodes.values():
            space.close()
        shutil.rmtree(self.directory)

    def endpoint(self):
        return f"http://{API[0]}:{API[1]}{self.cloud.base}"

    def forget(self, node):
        """All that a hook remembers, as after a boot."""
        shutil.rmtree(self.directory / node / "cache")

    def config(self, node, **changes):
        """The path of a config file for node; a change to None leaves the key out."""
        keys = {"endpoint": self.endpoint(), "cache": self.directory / node / "cache", **self.cloud.config(), **changes}
        path = self.directory / node / "hook.conf"
        text = "# as the tests write it\n\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value is not None)
        path.write_text(text)
        path.chmod(0o600)
        return path

    def master(self, node, term=TERM):
        """What both daemons believe: the file that WGHA_TERM_FILE names."""
        for each in self.nodes:
            new = self.directory / each / "term.new"
            new.write_text(f"{term} {node}\n")
            new.rename(self.directory / each / "term")

    def each_its_own(self, term=TERM):
        """Both daemons believe to be master."""
        for each in self.nodes:
            (self.directory / each / "term").write_text(f"{term} {each}\n")

    def start(self, node, verb, deadline=10, term=TERM, environment=None, config=None, arguments=None, shell=()):
        if arguments is None:
            arguments = (config or self.config(node), verb)
        return Run(
            self.nodes[node].command(*shell, self.hooks / self.cloud.hook, *arguments),
            {
                "PATH": self.path,
                "WGHA_CLUSTER": "edge", "WGHA_NODE": node, "WGHA_ROLE": "master", "WGHA_TERM": str(term), "WGHA_MASTER": node,
                "WGHA_VERB": verb, "WGHA_DEADLINE_S": str(deadline), "WGHA_TERM_FILE": str(self.directory / node / "term"),
                **(environment or {}),
            },
        )

    def run(self, node, verb, **words):
        return self.start(node, verb, **words).result()
