"""Azure: single routes of two route tables, by ARM; the instance metadata service. The client azure-mgmt-network agrees."""

import time

from .cloud import Answer, Cloud

SUBSCRIPTION, GROUP = "5ub5c21b-0000-4000-8000-000000000001", "edge"
TOKEN = "eyJ0.token-of.the-managed_identity"
TABLES = ("vnet-routes", "other-routes")
ADDRESSES = {"a": "10.0.1.4", "b": "10.0.1.5", "x": "10.0.1.6"}
NODES = {address: node for node, address in ADDRESSES.items()}
MACS = {"a": "000D3A00000A", "b": "000D3A00000B"}
PREFIX = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Network/routeTables/"
OPERATIONS = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Network/locations/westeurope/operations/"
TROUBLE = {
    "busy": (429, "TooManyRequests"),
    "locked": (409, "AnotherOperationInProgress"),
    "error": (500, "InternalServerError"),
    "denied": (403, "AuthorizationFailed"),
    "missing": (404, "ResourceNotFound"),
    "no route": (404, "NotFound"),
    "invalid": (400, "InvalidRequestContent"),
    "another": (429, "RetryableErrorDueToAnotherOperation"),
    "credentials": (401, "InvalidAuthenticationToken"),
}


class AzureRoute(Cloud):
    hook = "azure-route"

    def __init__(self):
        super().__init__()
        self.state = {"routes": dict.fromkeys(TABLES)}

    def config(self):
        return {"destination": "10.8.0.0/24", "route": "vpn", "route_tables": " ".join(TABLES)}

    def secrets(self):
        return [TOKEN]

    def wrong_config(self):
        return {"route_tables": "no-such-table"}

    def owner(self):
        holders = {NODES.get(route and route["nextHopIpAddress"]) for route in self.state["routes"].values()}
        return holders.pop() if len(holders) == 1 else "x"

    def give(self, node):
        for table in TABLES:
            self.state["routes"][table] = self.route(ADDRESSES[node]) if node else None

    def route(self, address):
        return {"addressPrefix": "10.8.0.0/24", "nextHopType": "VirtualAppliance", "nextHopIpAddress": address}

    def authorized(self, request):
        return request.headers.get("Authorization") == f"Bearer {TOKEN}"

    def trouble(self, kind):
        status, code = TROUBLE[kind]
        return Answer(status, {"error": {"code": code, "message": f"fake: {code}", "details": []}})

    def metadata(self, request):
        if request.headers.get("Metadata") != "true":
            return Answer(400, {"error": "Bad request. Required metadata header not specified"})
        if request.path == "/metadata/identity/oauth2/token" and request.query.get("resource") == "https://management.azure.com/":
            expires = int(time.time()) + 3600
            return Answer(200, {"access_token": TOKEN, "expires_in": "3600", "expires_on": str(expires), "token_type": "Bearer"})
        if request.path == "/metadata/instance" and request.query.get("api-version") == "2021-02-01":
            addresses = [{"privateIpAddress": ADDRESSES[request.node], "publicIpAddress": ""}]
            card = {"ipv4": {"ipAddress": addresses, "subnet": []}, "ipv6": {"ipAddress": []}, "macAddress": MACS[request.node]}
            compute = {"subscriptionId": SUBSCRIPTION, "resourceGroupName": GROUP, "name": f"gw-{request.node}"}
            return Answer(200, {"compute": compute, "network": {"interface": [card]}})
        return Answer(404, {"error": "Not found"})

    def answer(self, request):
        if not request.query.get("api-version"):
            return self.trouble("invalid")
        if request.path.startswith(OPERATIONS):
            return self.operation(request.path.removeprefix(OPERATIONS))
        table, _, name = request.path.removeprefix(PREFIX).partition("/routes/")
        if table not in TABLES or name != "vpn":
            return self.trouble("missing")
        if request.method == "PUT":
            return self.put(table, request)
        route = self.seen()["routes"][table]
        return Answer(200, self.shown(table, route)) if route else self.trouble("no route")

    def put(self, table, request):
        wanted = request.json()["properties"]
        if wanted.get("nextHopType") != "VirtualAppliance" or wanted.get("nextHopIpAddress") not in NODES:
            return self.trouble("invalid")
        if any(operation["table"] == table for operation in self.running()):
            return self.trouble("another")
        route = {key: wanted[key] for key in ("addressPrefix", "nextHopType", "nextHopIpAddress")}
        operation = self.start(lambda state: state["routes"].update({table: route}), table=table)
        where = f"http://{request.headers['Host']}{OPERATIONS}{operation['id']}?api-version=2023-05-01"
        return Answer(201, self.shown(table, route), {"Azure-AsyncOperation": where, "Retry-After": "0"})

    def operation(self, number):
        operation = self.operations.get(number)
        if not operation:
            return self.trouble("missing")
        if not operation["done"]:
            return Answer(200, {"status": "InProgress"})
        if operation["fails"]:
            return Answer(200, {"status": "Failed", "error": {"code": "InternalServerError", "message": "fake: it failed"}})
        return Answer(200, {"status": "Succeeded"})

    def shown(self, table, route):
        busy = any(operation["table"] == table for operation in self.running())
        return {
            "name": "vpn", "id": f"{PREFIX}{table}/routes/vpn", "etag": 'W/"1"', "type": "Microsoft.Network/routeTables/routes",
            "properties": {**route, "provisioningState": "Updating" if busy else "Succeeded", "hasBgpOverride": False},
        }
