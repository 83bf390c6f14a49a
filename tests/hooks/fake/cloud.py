"""What all providers share: HTTP, faults that a test switches on, operations that take their time, stale reads."""

import copy
import json
import socket
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The kinds of fault that Cloud.fault takes. The first five are answered in the provider's own words.
IN_WORDS = ("busy", "locked", "error", "denied", "missing")
OTHERS = ("garbage", "empty", "cut", "drop", "hang", "slow")
SLOW_SECONDS = 1.5


@dataclass
class Request:
    """One call, as a provider sees it."""

    node: str  # the namespace that it came from
    method: str
    path: str
    query: dict
    headers: object
    body: bytes
    target: str = ""  # path and query as they came

    def json(self):
        return json.loads(self.body or b"{}")

    def form(self):
        return dict(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass
class Answer:
    """What a provider says; a dict as body is sent as JSON."""

    status: int = 200
    body: object = b""
    headers: dict = field(default_factory=dict)
    cut: bool = False  # the connection is closed after a part of it

    def encoded(self):
        if isinstance(self.body, (dict, list)):
            return json.dumps(self.body).encode(), "application/json"
        if isinstance(self.body, str):
            return self.body.encode(), "text/xml" if self.body.startswith("<") else "text/plain"
        return self.body, "application/octet-stream"


@dataclass
class Fault:
    """One kind of trouble, for so many calls of one kind."""

    kind: str
    times: int
    only: str  # "read", "change" or "any"


class Cloud:
    """The state of one provider's account. A provider is a subclass: see the methods that raise."""

    hook = ""  # the name of the hook
    base = ""  # what the endpoint has after host and port
    metadata_address = "169.254.169.254"
    calls_without_credentials = 0  # before the first one that has any
    asynchronous = True  # whether its changes are operations
    absence_is_seen = True  # whether looking tells what does not exist from what nobody has

    def __init__(self):
        self.lock = threading.RLock()
        self.state = {}
        self.stale = {}  # the state before the last change
        self.stale_reads = 0  # so many reads still see that one
        self.stale_after_change = 0  # so many after each change from now on
        self.operations = {}
        self.operation_seconds = 0.0
        self.operation_fails = 0
        self.credentials_good = True
        self.metadata_works = True
        self.metadata_says_nothing = False  # but that all is well
        self.faults = []
        self.calls = []  # (node, "read" or "change", what, status)
        self.waiting = threading.Event()  # what hangs waits for this

    # What a provider says of itself.
    def config(self):
        """KEY=value of the hook's config, but for endpoint and cache."""
        raise NotImplementedError

    def owner(self):
        """The node that holds it: "a", "b", "x" for something else, or None."""
        raise NotImplementedError

    def give(self, node):
        """Makes it so."""
        raise NotImplementedError

    def wrong_config(self):
        """What to change in the config for a resource that does not exist."""
        raise NotImplementedError

    def secrets(self):
        """What must not be seen by others."""
        raise NotImplementedError

    def authorized(self, request):
        raise NotImplementedError

    def changes(self, request):
        """Whether the call would change something."""
        return request.method != "GET"

    def answer(self, request):
        raise NotImplementedError

    def metadata(self, request):
        raise NotImplementedError

    def trouble(self, kind):
        """An Answer for one of IN_WORDS and "credentials"."""
        raise NotImplementedError

    def label(self, request):
        """The call in the log."""
        return f"{request.method} {request.path}"

    # What a test switches on.
    def fault(self, kind, times=1, only="any"):
        assert kind in IN_WORDS + OTHERS, kind
        self.faults.append(Fault(kind, times, only))

    def heal(self):
        """Ends all faults, and all that hangs now."""
        self.faults = []
        self.waiting.set()
        self.waiting = threading.Event()

    def end_operations(self):
        """Those that run end with the next call."""
        with self.lock:
            for operation in self.operations.values():
                operation["due"] = 0

    def count(self, kind, node=None):
        """How many calls of a kind were served or refused."""
        return sum(1 for call in self.calls if call[1] == kind and node in (None, call[0]))

    # What providers use.
    def seen(self):
        """The state, or the one before, as a reader may get it."""
        if self.stale_reads > 0:
            self.stale_reads -= 1
            return self.stale
        return self.state

    def apply(self, change):
        """Changes the state at once: change(state)."""
        self.stale = copy.deepcopy(self.state)
        change(self.state)
        self.stale_reads = self.stale_after_change

    def start(self, change, **words):
        """An operation that changes the state when its time is over. It fails if a test has asked for that."""
        number = 1000 + len(self.operations)
        fails = self.operation_fails > 0
        self.operation_fails -= fails
        self.operations[str(number)] = {
            "id": number, "due": time.monotonic() + self.operation_seconds, "change": change, "done": False, "fails": fails, **words,
        }
        self.advance()
        return self.operations[str(number)]

    def advance(self):
        for operation in self.operations.values():
            if not operation["done"] and time.monotonic() >= operation["due"]:
                operation["done"] = True
                if not operation["fails"]:
                    self.apply(operation["change"])

    def running(self):
        return [operation for operation in self.operations.values() if not operation["done"]]

    # Called by the server.
    def serve(self, request):
        """An Answer, or None for a connection that is closed without one."""
        with self.lock:
            self.advance()
            kind = "change" if self.changes(request) else "read"
            fault = next((f for f in self.faults if f.times > 0 and f.only in ("any", kind)), None)
            if fault:
                fault.times -= 1
            if fault is None or fault.kind in ("slow", "cut"):
                answer = self.checked(request)
                answer.cut = fault is not None and fault.kind == "cut"
            elif fault.kind in IN_WORDS:
                answer = self.trouble(fault.kind)
            elif fault.kind == "garbage":
                answer = Answer(200, "<html>It works!</html>")
            elif fault.kind == "empty":
                answer = Answer(200, "")
            else:
                answer = None
            self.calls.append((request.node, kind, self.label(request), answer.status if answer else fault.kind))
        if fault and fault.kind == "slow":
            time.sleep(SLOW_SECONDS)
        if fault and fault.kind == "hang":
            self.waiting.wait(60)
        return answer

    def checked(self, request):
        if not self.credentials_good or not self.authorized(request):
            return self.trouble("credentials")
        return self.answer(request)

    def serve_metadata(self, request):
        with self.lock:
            if self.metadata_says_nothing:
                return Answer(200, "")
            return self.metadata(request) if self.metadata_works else None


def listen(make_socket, serve, node):
    """Serves on a socket that listens already, in threads that end with the process."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            parts = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = serve(Request(node, self.command, urllib.parse.unquote(parts.path), query, self.headers, body, self.path))
            self.close_connection = True
            if answer is None:
                return
            body, kind = answer.encoded()
            self.send_response(answer.status)
            for key, value in {"Content-Type": kind, **answer.headers}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body[: len(body) * 2 // 3] if answer.cut else body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def serve(self):
            # Not serve_forever, which polls for its end.
            while True:
                try:
                    connection, address = self.socket.accept()
                except OSError:
                    return
                self.process_request(connection, address)

        def close(self):
            self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

        def handle_error(self, *_):
            pass  # a hook that was killed

    server = Server(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = make_socket()
    threading.Thread(target=server.serve, daemon=True).start()
    return server
