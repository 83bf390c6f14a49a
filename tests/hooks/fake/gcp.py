"""Google Cloud's compute API: static routes and a forwarding rule; the metadata server. The client google-api-python-client agrees."""

import datetime
import re

from .cloud import Answer, Cloud

PROJECT, ZONE, REGION, NETWORK = "my-project", "europe-west3-a", "europe-west3", "vpc"
TOKEN = "ya29.token-of-the-service-account"
DESTINATION = "10.8.0.0/24"
ROOT = "https://www.googleapis.com/compute/v1"
PATH = f"/compute/v1/projects/{PROJECT}"
TROUBLE = {
    "busy": (403, "rateLimitExceeded"),
    "locked": (400, "resourceNotReady"),
    "error": (503, "backendError"),
    "denied": (403, "forbidden"),
    "missing": (404, "notFound"),
    "exists": (409, "alreadyExists"),
    "invalid": (400, "invalid"),
    "credentials": (401, "authError"),
}


def of_zone(kind, name):
    return f"{ROOT}/projects/{PROJECT}/zones/{ZONE}/{kind}/{name}"


class Gcp(Cloud):
    base = "/compute/v1"

    def secrets(self):
        return [TOKEN]

    def authorized(self, request):
        return request.headers.get("Authorization") == f"Bearer {TOKEN}"

    def trouble(self, kind):
        status, reason = TROUBLE[kind]
        return Answer(status, {
            "error": {"code": status, "message": f"fake: {reason}", "errors": [{"message": f"fake: {reason}", "domain": "global", "reason": reason}]}
        })

    def metadata(self, request):
        if request.headers.get("Metadata-Flavor") != "Google":
            return Answer(403, "Missing Metadata-Flavor:Google header.")
        values = {
            "instance/name": f"gw-{request.node}",
            "instance/zone": f"projects/12345/zones/{ZONE}",
            "instance/network-interfaces/0/network": f"projects/12345/networks/{NETWORK}",
            "project/project-id": PROJECT,
            "instance/service-accounts/default/token": {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"},
        }
        path = request.path.removeprefix("/computeMetadata/v1/")
        return Answer(200, values[path]) if path in values else Answer(404, "not found")

    def operation(self, scope, operation):
        status = "DONE" if operation["done"] else "RUNNING"
        body = {
            "kind": "compute#operation", "id": str(operation["id"]), "name": f"operation-{operation['id']}", "operationType": operation["type"],
            "status": status, "progress": 100 if operation["done"] else 0, "selfLink": f"{ROOT}/projects/{PROJECT}/{scope}/operations/operation-{operation['id']}",
        }
        if operation["done"] and operation["fails"]:
            body["error"] = {"errors": [{"code": "RESOURCE_NOT_READY", "message": "fake: it failed"}]}
            body["httpErrorStatusCode"] = 400
        return Answer(200, body)

    def find_operation(self, scope, path):
        match = re.fullmatch(rf"{scope}/operations/operation-(\d+)", path)
        if match and match[1] in self.operations:
            return self.operation(scope, self.operations[match[1]])
        return None


class GcpRoute(Gcp):
    hook = "gcp-route"
    page_size = 500

    def __init__(self):
        super().__init__()
        self.state = {"routes": {}}
        self.made = 0
        for name, destination in (("default-route", "0.0.0.0/0"), ("vpn-other", DESTINATION)):
            self.add(self.state, {"name": name, "destRange": destination, "nextHopInstance": of_zone("instances", "gw-y")})

    def config(self):
        return {"destination": DESTINATION, "route": "vpn-edge"}

    def wrong_config(self):
        return {"project": "no-such-project"}

    def routes(self):
        return [route for name, route in self.state["routes"].items() if name.startswith("vpn-edge-")]

    def owner(self):
        """Two routes share the traffic, so that nobody has it."""
        routes = self.routes()
        return routes[0]["nextHopInstance"][-1] if len(routes) == 1 else None if not routes else "x"

    def give(self, node):
        for route in self.routes():
            del self.state["routes"][route["name"]]
        if node:
            self.add(self.state, {"name": f"vpn-edge-gw-{node}", "destRange": DESTINATION, "nextHopInstance": of_zone("instances", f"gw-{node}")})

    def add(self, state, route):
        # Each a millisecond later, as Google writes it.
        self.made += 1
        when = datetime.datetime(2026, 11, 22, 10) + datetime.timedelta(milliseconds=self.made)
        state["routes"][route["name"]] = {
            "kind": "compute#route", "id": str(self.made), "creationTimestamp": when.isoformat(timespec="milliseconds") + "-08:00", "priority": 1000,
            "network": f"{ROOT}/projects/{PROJECT}/global/networks/{NETWORK}",
            "selfLink": f"{ROOT}/projects/{PROJECT}/global/routes/{route['name']}", **route,
        }

    def answer(self, request):
        path = request.path.removeprefix(f"{PATH}/")
        if path == "global/routes":
            return self.listed(request.query) if request.method == "GET" else self.insert(request.json())
        if found := self.find_operation("global", path):
            return found
        name = path.removeprefix("global/routes/")
        if name not in self.state["routes"]:
            return self.trouble("missing")
        if request.method == "GET":
            return Answer(200, self.state["routes"][name])
        return self.operation("global", self.start(lambda state: state["routes"].pop(name, None), type="delete"))

    def listed(self, query):
        routes = list(self.seen()["routes"].values())
        if wanted := query.get("filter"):
            match = re.fullmatch(r'destRange ?= ?"([^"]+)"', wanted)
            if not match:
                return self.trouble("invalid")
            routes = [route for route in routes if route["destRange"] == match[1]]
        begin = int(query.get("pageToken", "0"))
        body = {"kind": "compute#routeList", "id": "routes", "items": routes[begin : begin + self.page_size]}
        if begin + self.page_size < len(routes):
            body["nextPageToken"] = str(begin + self.page_size)
        if not body["items"]:
            del body["items"]
        return Answer(200, body)

    def insert(self, route):
        if not all(route.get(key) for key in ("name", "network", "destRange", "nextHopInstance")):
            return self.trouble("invalid")
        if route["name"] in self.state["routes"]:
            return self.trouble("exists")
        return self.operation("global", self.start(lambda state: self.add(state, route), type="insert"))


class GcpForwardingRule(Gcp):
    hook = "gcp-forwarding-rule"

    def __init__(self):
        super().__init__()
        self.state = {"target": None}

    def config(self):
        return {"forwarding_rule": "vpn"}

    def wrong_config(self):
        return {"forwarding_rule": "none"}

    def owner(self):
        return self.state["target"][-1] if self.state["target"] else None

    def give(self, node):
        self.state["target"] = of_zone("targetInstances", f"gw-{node}") if node else None

    def answer(self, request):
        path = request.path.removeprefix(f"{PATH}/")
        scope = f"regions/{REGION}"
        if found := self.find_operation(scope, path):
            return found
        if path == f"{scope}/forwardingRules/vpn" and request.method == "GET":
            target = self.seen()["target"]
            rule = {
                "kind": "compute#forwardingRule", "id": "1", "name": "vpn", "region": f"{ROOT}/projects/{PROJECT}/{scope}",
                "IPAddress": "203.0.113.50", "IPProtocol": "UDP", "portRange": "51820-51820", "loadBalancingScheme": "EXTERNAL",
            }
            return Answer(200, {**rule, "target": target} if target else rule)
        if path == f"{scope}/forwardingRules/vpn/setTarget" and request.method == "POST":
            target = request.json()["target"]
            if target not in (of_zone("targetInstances", f"gw-{node}") for node in "abx"):
                return self.trouble("invalid")
            if self.running():
                return self.trouble("locked")
            return self.operation(scope, self.start(lambda state: state.update(target=target), type="SetTarget"))
        return self.trouble("missing")
