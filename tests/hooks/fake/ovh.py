"""OVH: one additional IP, two dedicated servers. Every signature and its time are verified; the client `ovh` agrees (test_clients)."""

import hashlib
import re
import time

from .cloud import Answer, Cloud

SERVICES = {"a": "ns1.ip-192-0-2.eu", "b": "ns2.ip-192-0-2.eu", "x": "ns9.ip-192-0-2.eu"}
NODES = {service: node for node, service in SERVICES.items()}
ADDRESS = "203.0.113.64"
KEY, SECRET, CONSUMER = "aBcDeFgHiJkLmNoP", "ovh+application/secret", "ovhConsumerKeyOfTheGateways"
PATIENCE_SECONDS = 30
TROUBLE = {
    "busy": (429, "Client::TooManyRequests"),
    "locked": (409, "Client::Conflict"),
    "error": (503, "Server::ServiceUnavailable"),
    "denied": (403, "NOT_GRANTED_CALL"),
    "missing": (404, "Client::NotFound"),
    "credentials": (403, "INVALID_CREDENTIAL"),
}


def refusal(status, code):
    """An error of the gateway has a code, one of a service a class."""
    return Answer(status, {"class" if "::" in code else "errorCode": code, "message": f"fake: {code}", "httpCode": str(status)})


class Ovh(Cloud):
    hook = "ovh-additional-ip"
    base = "/1.0"
    calls_without_credentials = 1
    # As its URLs and its answers have it: a block has a slash.
    address, block = ADDRESS, f"{ADDRESS}/32"

    def __init__(self):
        super().__init__()
        self.state = {"service": None}
        self.clock_ahead = 5000  # OVH's clock, from that of the nodes
        self.times_asked = 0

    def config(self):
        services = " ".join(f"{node}={service}" for node, service in SERVICES.items() if node != "x")
        return {"ip": self.address, "services": services, "application_key": KEY, "application_secret": SECRET, "consumer_key": CONSUMER}

    def secrets(self):
        return [SECRET, CONSUMER]

    def wrong_config(self):
        return {"ip": "203.0.113.99"}

    def owner(self):
        return NODES.get(self.state["service"])

    def give(self, node):
        self.state["service"] = SERVICES.get(node)

    def now(self):
        return int(time.time()) + self.clock_ahead

    def checked(self, request):
        if request.path == "/1.0/auth/time":
            self.times_asked += 1
            return Answer(200, str(self.now()).encode())
        stamp = request.headers.get("X-Ovh-Timestamp", "")
        if not stamp.isdigit() or abs(int(stamp) - self.now()) > PATIENCE_SECONDS:
            return refusal(400, "QUERY_TIME_OUT")
        if request.headers.get("X-Ovh-Signature") != self.signature(request, stamp):
            return refusal(400, "INVALID_SIGNATURE")
        return super().checked(request)

    def signature(self, request, stamp):
        url = f"http://{request.headers['Host']}{request.target}"
        text = "+".join([SECRET, CONSUMER, request.method, url, request.body.decode(), stamp])
        return "$1$" + hashlib.sha1(text.encode()).hexdigest()

    def authorized(self, request):
        return (request.headers.get("X-Ovh-Application"), request.headers.get("X-Ovh-Consumer")) == (KEY, CONSUMER)

    def trouble(self, kind):
        return refusal(*TROUBLE[kind])

    def answer(self, request):
        path, found = request.path.removeprefix("/1.0"), f"/ip/{self.address}"
        if request.method == "GET" and path == found:
            return Answer(200, self.ip())
        if request.method == "GET" and path == f"{found}/task":
            return Answer(200, [task["id"] for task in self.operations.values() if self.wanted(task, request.query)])
        if request.method == "GET" and (match := re.fullmatch(rf"{re.escape(found)}/task/(\d+)", path)) and match[1] in self.operations:
            return Answer(200, self.task(self.operations[match[1]]))
        if request.method == "POST" and path == f"{found}/move":
            return self.move(request.json().get("to"))
        if request.method == "POST" and path == f"{found}/park":
            return self.begin(None)
        return self.trouble("missing")

    def move(self, service):
        return self.begin(service) if service in NODES else refusal(400, "Client::BadRequest")

    def begin(self, service):
        if self.running():
            return self.trouble("locked")
        return Answer(200, self.task(self.start(lambda state: state.update(service=service), service=service, begun=time.monotonic())))

    def wanted(self, task, query):
        return query.get("function") in (None, "genericMoveFloatingIp") and query.get("status") in (None, self.status(task))

    def status(self, task):
        """It waits for a moment, then it runs."""
        if task["done"]:
            return "ovhError" if task["fails"] else "done"
        return "todo" if time.monotonic() < task["begun"] + 0.1 else "doing"

    def task(self, task):
        status = self.status(task)
        return {
            "taskId": task["id"], "function": "genericMoveFloatingIp", "status": status, "startDate": "2026-11-22T10:00:00+01:00",
            "lastUpdate": "2026-11-22T10:00:30+01:00", "doneDate": "2026-11-22T10:00:55+01:00" if task["done"] else None,
            "comment": "the router did not answer" if status == "ovhError" else None,
            "destination": {"serviceName": task["service"], "nexthop": None} if task["service"] else None,
        }  # fmt: skip

    def ip(self):
        service = self.seen()["service"]
        return {
            "ip": self.block, "type": "failover", "routedTo": {"serviceName": service} if service else None, "country": "fr", "description": None,
            "organisationId": None, "canBeTerminated": True, "isAdditionalIp": True, "version": 4, "bringYourOwnIp": False, "rirId": None,
        }  # fmt: skip


class OvhBlock(Ovh):
    """A block of four addresses, which moves as one."""

    address = block = f"{ADDRESS}/30"
