"""DigitalOcean: one reserved IPv4 address, two droplets. Shapes from its OpenAPI documents; the client pydo agrees."""

import re

from .cloud import Answer, Cloud

DROPLETS = {"a": 301, "b": 302, "x": 399}
NODES = {number: node for node, number in DROPLETS.items()}
ADDRESS = "203.0.113.20"
TROUBLE = {
    "busy": (429, "too_many_requests"),
    "locked": (422, "unprocessable_entity"),
    "error": (503, "service_unavailable"),
    "denied": (403, "forbidden"),
    "missing": (404, "not_found"),
    "credentials": (401, "unauthorized"),
}


class DigitalOcean(Cloud):
    hook = "digitalocean-reserved-ip"
    base = "/v2"
    token = "dop_v1_token"

    def __init__(self):
        super().__init__()
        self.state = {"droplet": None}

    def config(self):
        return {"reserved_ip": ADDRESS, "token": self.token}

    def secrets(self):
        return [self.token]

    def wrong_config(self):
        return {"reserved_ip": "203.0.113.99"}

    def owner(self):
        return NODES.get(self.state["droplet"])

    def give(self, node):
        self.state["droplet"] = DROPLETS.get(node)

    def authorized(self, request):
        return request.headers.get("Authorization") == f"Bearer {self.token}"

    def trouble(self, kind):
        status, code = TROUBLE[kind]
        message = f"The reserved IP {ADDRESS} already has a pending event." if kind == "locked" else f"fake: {code}"
        return Answer(status, {"id": code, "message": message, "request_id": "4d9d8375-3c56-4925-a3e7-eb137fed17e9"})

    def metadata(self, request):
        if request.path == "/metadata/v1/id":
            return Answer(200, str(DROPLETS[request.node]))
        return Answer(404, "not found")

    def answer(self, request):
        path = request.path.removeprefix("/v2")
        if path == f"/reserved_ips/{ADDRESS}" and request.method == "GET":
            return Answer(200, {"reserved_ip": self.reserved_ip()})
        if path == f"/reserved_ips/{ADDRESS}/actions" and request.method == "POST":
            return self.act(request.json())
        match = re.fullmatch(rf"/reserved_ips/{re.escape(ADDRESS)}/actions/(\d+)", path)
        if match and match[1] in self.operations:
            return Answer(200, {"action": self.action(self.operations[match[1]])})
        return self.trouble("missing")

    def act(self, body):
        if self.running():
            return self.trouble("locked")
        if body.get("type") not in ("assign", "unassign"):
            return Answer(422, {"id": "unprocessable_entity", "message": "You must specify an action type."})
        droplet = body.get("droplet_id") if body["type"] == "assign" else None
        if body["type"] == "assign" and droplet not in NODES:
            return Answer(422, {"id": "unprocessable_entity", "message": "Droplet could not be found."})
        operation = self.start(lambda state: state.update(droplet=droplet), type=f"{body['type']}_ip")
        return Answer(201, {"action": self.action(operation)})

    def action(self, operation):
        status = "in-progress" if not operation["done"] else "errored" if operation["fails"] else "completed"
        return {
            "id": operation["id"], "status": status, "type": operation["type"], "started_at": "2026-11-22T10:00:00Z",
            "completed_at": "2026-11-22T10:00:11Z" if operation["done"] else None, "resource_id": 758604968,
            "resource_type": "reserved_ip", "region": REGION, "region_slug": "fra1",
        }

    def reserved_ip(self):
        droplet = self.seen()["droplet"]
        return {
            "ip": ADDRESS, "region": REGION, "locked": bool(self.running()), "project_id": "746c6152-2fa2-11ed-92d3-27aaa54e4988",
            "droplet": {"id": droplet, "name": f"gw-{NODES[droplet]}", "status": "active"} if droplet else None,
        }


REGION = {"name": "Frankfurt 1", "slug": "fra1", "features": [], "available": True, "sizes": []}
