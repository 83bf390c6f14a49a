"""Hetzner Cloud: one floating IP, two servers. Shapes from its OpenAPI document; the client hcloud agrees (test_clients)."""

import re

from .cloud import Answer, Cloud

SERVERS = {"a": 101, "b": 102, "x": 199}
NODES = {number: node for node, number in SERVERS.items()}
TROUBLE = {
    "busy": (429, "rate_limit_exceeded"),
    "locked": (423, "locked"),
    "error": (503, "unavailable"),
    "denied": (403, "token_readonly"),
    "missing": (404, "not_found"),
    "credentials": (401, "unauthorized"),
}


class Hetzner(Cloud):
    hook = "hetzner-floating-ip"
    base = "/v1"
    token = "hetzner-token"

    def __init__(self):
        super().__init__()
        self.state = {"server": None}

    def config(self):
        return {"floating_ip": "4711", "token": self.token}

    def secrets(self):
        return [self.token]

    def wrong_config(self):
        return {"floating_ip": "9999"}

    def owner(self):
        return NODES.get(self.state["server"])

    def give(self, node):
        self.state["server"] = SERVERS.get(node)

    def authorized(self, request):
        return request.headers.get("Authorization") == f"Bearer {self.token}"

    def trouble(self, kind):
        status, code = TROUBLE[kind]
        return Answer(status, {"error": {"code": code, "message": f"fake: {code}", "details": None}})

    def metadata(self, request):
        if request.path == "/hetzner/v1/metadata/instance-id":
            return Answer(200, str(SERVERS[request.node]))
        return Answer(404, "not found")

    def answer(self, request):
        path = request.path.removeprefix("/v1")
        if path == "/floating_ips/4711" and request.method == "GET":
            return Answer(200, {"floating_ip": self.floating_ip()})
        if path in ("/floating_ips/4711/actions/assign", "/floating_ips/4711/actions/unassign") and request.method == "POST":
            return self.act(path.rpartition("/")[2], request)
        if (match := re.fullmatch(r"/actions/(\d+)", path)) and match[1] in self.operations:
            return Answer(200, {"action": self.action(self.operations[match[1]])})
        return self.trouble("missing")

    def act(self, command, request):
        if self.running():
            return self.trouble("locked")
        server = request.json().get("server") if command == "assign" else None
        if command == "assign" and server not in NODES:
            return self.trouble("missing")
        operation = self.start(lambda state: state.update(server=server), command=f"{command}_floating_ip")
        return Answer(201, {"action": self.action(operation)})

    def action(self, operation):
        status = "running" if not operation["done"] else "error" if operation["fails"] else "success"
        return {
            "id": operation["id"],
            "command": operation["command"],
            "status": status,
            "progress": 100 if operation["done"] else 0,
            "started": "2026-11-22T10:00:00+00:00",
            "finished": "2026-11-22T10:00:01+00:00" if operation["done"] else None,
            "resources": [{"id": 4711, "type": "floating_ip"}],
            "error": {"code": "action_failed", "message": "Action failed"} if status == "error" else None,
        }

    def floating_ip(self):
        return {
            "id": 4711, "name": "vpn", "description": None, "ip": "203.0.113.10", "type": "ipv4",
            "server": self.seen()["server"], "dns_ptr": [], "home_location": LOCATION, "blocked": False,
            "protection": {"delete": False}, "labels": {}, "created": "2026-01-01T00:00:00+00:00",
        }


LOCATION = {
    "id": 1, "name": "fsn1", "description": "Falkenstein", "country": "DE", "city": "Falkenstein",
    "latitude": 50.0, "longitude": 12.0, "network_zone": "eu-central",
}
