"""OpenStack: Keystone with application credentials, Neutron with one floating IP and two ports. The client openstacksdk agrees."""

import datetime

from .cloud import Answer, Cloud

PORTS = {"a": "aaaaaaaa-0000-4000-8000-000000000001", "b": "bbbbbbbb-0000-4000-8000-000000000002", "x": "cccccccc-0000-4000-8000-000000000003"}
NODES = {port: node for node, port in PORTS.items()}
FLOATING_IP = "f10a7104-0000-4000-8000-000000000009"
MACS = {"a": "fa:16:3e:00:00:0a", "b": "fa:16:3e:00:00:0b"}
TROUBLE = {
    "busy": (429, "OverLimit"),
    "locked": (409, "RevisionNumberConstraintFailed"),
    "error": (503, "ServiceUnavailable"),
    "denied": (403, "PolicyNotAuthorized"),
    "missing": (404, "FloatingIPNotFound"),
    "credentials": (401, "Unauthorized"),
}


class OpenStack(Cloud):
    hook = "openstack-floating-ip"
    base = "/network"
    asynchronous = False
    secret = "application-credential-secret"

    def __init__(self):
        super().__init__()
        self.state = {"port": None}
        self.tokens = []

    def config(self):
        return {
            "auth_url": "http://127.0.0.1:8000/identity/v3", "endpoint": None, "floating_ip": FLOATING_IP,
            "application_credential_id": "ac1d", "application_credential_secret": self.secret,
        }

    def secrets(self):
        return [self.secret, *self.tokens]

    def wrong_config(self):
        return {"floating_ip": "f10a7104-0000-4000-8000-000000000000"}

    def owner(self):
        return NODES.get(self.state["port"])

    def give(self, node):
        self.state["port"] = PORTS.get(node)

    def changes(self, request):
        return request.method != "GET" and not request.path.startswith("/identity")

    def trouble(self, kind):
        status, code = TROUBLE[kind]
        if kind == "credentials":
            return Answer(status, {"error": {"code": status, "message": "The request you have made requires authentication.", "title": code}})
        return Answer(status, {"NeutronError": {"type": code, "message": f"fake: {code}", "detail": ""}})

    def authorized(self, request):
        if request.path.startswith("/identity"):
            return True
        return request.headers.get("X-Auth-Token") in self.tokens

    def metadata(self, request):
        if request.path != "/openstack/latest/network_data.json":
            return Answer(404, "not found")
        link = {"id": "tap0", "type": "ovs", "mtu": 1450, "ethernet_mac_address": MACS[request.node], "vif_id": PORTS[request.node]}
        return Answer(200, {"links": [link], "networks": [{"id": "network0", "link": "tap0", "type": "ipv4_dhcp"}], "services": []})

    def answer(self, request):
        path = request.path.rstrip("/")
        root = "http://" + request.headers["Host"]
        if path == "/identity/v3" and request.method == "GET":
            return Answer(200, {"version": version("v3.14", f"{root}/identity/v3/")})
        if path == "/identity/v3/auth/tokens" and request.method == "POST":
            return self.login(request, root)
        if path == "/network" and request.method == "GET":
            return Answer(200, {"versions": [version("v2.0", f"{root}/network/v2.0/")]})
        if path == f"/network/v2.0/floatingips/{FLOATING_IP}":
            if request.method == "PUT":
                return self.update(request.json()["floatingip"])
            return Answer(200, {"floatingip": self.floating_ip(self.seen())})
        return self.trouble("missing")

    def login(self, request, root):
        identity = request.json()["auth"]["identity"]
        credential = identity.get("application_credential", {})
        if identity["methods"] != ["application_credential"] or (credential.get("id"), credential.get("secret")) != ("ac1d", self.secret):
            return self.trouble("credentials")
        token = f"gAAAAA-token_{len(self.tokens)}"
        self.tokens.append(token)
        expires = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        endpoint = {"id": "e1", "interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": f"{root}/network"}
        private = {**endpoint, "id": "e2", "interface": "internal", "url": "http://192.0.2.1:9696"}
        body = {
            "methods": ["application_credential"], "expires_at": expires, "issued_at": "2026-11-22T10:00:00.000000Z",
            "user": {"id": "u", "name": "wgha", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p", "name": "edge", "domain": {"id": "default", "name": "Default"}},
            "catalog": [{"id": "n", "type": "network", "name": "neutron", "endpoints": [private, endpoint]}],
        }
        return Answer(201, {"token": body}, {"X-Subject-Token": token})

    def update(self, change):
        port = change.get("port_id", self.state["port"])
        if port is not None and port not in NODES:
            return Answer(404, {"NeutronError": {"type": "PortNotFound", "message": f"Port {port} could not be found.", "detail": ""}})
        self.apply(lambda state: state.update(port=port))
        return Answer(200, {"floatingip": self.floating_ip(self.state)})

    def floating_ip(self, state):
        port = state["port"]
        return {
            "id": FLOATING_IP, "floating_ip_address": "203.0.113.30", "floating_network_id": "ext", "router_id": "r" if port else None,
            "port_id": port, "fixed_ip_address": "10.0.0.5" if port else None, "status": "ACTIVE" if port else "DOWN", "description": "",
            "project_id": "p", "tenant_id": "p", "revision_number": 3, "tags": [], "port_details": None,
        }


def version(name, url):
    return {"id": name, "status": "CURRENT" if name.startswith("v2") else "stable", "links": [{"rel": "self", "href": url}]}
