"""Scaleway: one flexible IP, two Instances in one zone. Shapes and states from its Python SDK, which agrees (test_clients)."""

from .cloud import Answer, Cloud

SERVERS = {"a": "aaaaaaaa-0000-4000-8000-000000000001", "b": "bbbbbbbb-0000-4000-8000-000000000002", "x": "cccccccc-0000-4000-8000-000000000003"}
NODES = {server: node for node, server in SERVERS.items()}
ID, ADDRESS, ZONE, PROJECT = "4cf5a2d9-3a37-4c1a-9f0e-0a8c6a3b1e21", "203.0.113.30", "fr-par-1", "eeeeeeee-0000-4000-8000-000000000004"
IPS = f"/instance/v1/zones/{ZONE}/ips/"
TROUBLE = {
    "busy": (429, "too_many_requests"),
    "locked": (409, "transient_state"),
    "error": (503, "unavailable"),
    "denied": (403, "permissions_denied"),
    "missing": (404, "not_found"),
    "credentials": (401, "denied_authentication"),
}


class Scaleway(Cloud):
    hook = "scaleway-flexible-ip"
    metadata_address = "169.254.42.42"
    key = "5c417e3a-0000-4000-8000-00000000cafe"

    def __init__(self):
        super().__init__()
        self.state = {"server": None}

    def config(self):
        return {"flexible_ip": ID, "secret_key": self.key}

    def secrets(self):
        return [self.key]

    def wrong_config(self):
        return {"flexible_ip": "4cf5a2d9-0000-4000-8000-000000000000"}

    def owner(self):
        return NODES.get(self.state["server"])

    def give(self, node):
        self.state["server"] = SERVERS.get(node)
        self.operations.clear()

    def authorized(self, request):
        return request.headers.get("X-Auth-Token") == self.key

    def trouble(self, kind):
        status, code = TROUBLE[kind]
        return Answer(status, {"type": code, "message": f"fake: {code}", "resource": "instance_ip", "resource_id": ID})

    def refusal(self, reason):
        return Answer(400, {"type": "invalid_request_error", "message": "Validation Error", "fields": {"server": [reason]}})

    def metadata(self, request):
        if request.path == "/conf" and request.query == {"format": "json"}:
            server = SERVERS[request.node]
            location = {"zone_id": "par1", "platform_id": "14", "cluster_id": "1", "hypervisor_id": "2", "node_id": "3"}
            return Answer(200, {"id": server, "name": f"gw-{request.node}", "public_ip": None, "location": location, "zone": ZONE})
        return Answer(404, "not found")

    def answer(self, request):
        if request.path not in (IPS + ID, IPS + ADDRESS):
            return self.trouble("missing")
        if request.method == "GET":
            return Answer(200, {"ip": self.ip()})
        if request.method == "PATCH":
            return self.patch(request.json())
        return self.trouble("missing")

    def patch(self, body):
        if self.running():
            return self.trouble("locked")
        if "server" not in body or body["server"] not in (*NODES, None):
            return self.refusal("server not found")
        self.start(lambda state: state.update(server=body["server"]), server=body["server"])
        return Answer(200, {"ip": self.ip()})

    def ip(self):
        """While an operation runs it says where the address will be."""
        running, last = self.running(), list(self.operations.values())[-1:]
        server = running[0]["server"] if running else self.seen()["server"]
        failed = last and last[0]["done"] and last[0]["fails"]
        state = "pending" if running else "error" if failed else "attached" if server else "detached"
        return {
            "id": ID, "address": ADDRESS, "prefix": None, "type": "routed_ipv4", "state": state, "zone": ZONE, "tags": [], "reverse": None,
            "organization": PROJECT, "project": PROJECT, "ipam_id": "a81665be-0059-431f-bf44-8d7bdf1dac01",
            "server": {"id": server, "name": f"gw-{NODES[server]}"} if server else None,
        }  # fmt: skip
