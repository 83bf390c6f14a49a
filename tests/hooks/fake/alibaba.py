"""Alibaba Cloud's VPC API: an EIP and a route table. Signatures are computed again by Alibaba's own client (test_signed)."""

import datetime

from alibabacloud_openapi_util.client import Client as Util
from Tea.request import TeaRequest

from .cloud import Answer, Cloud

INSTANCES = {"a": "i-aaaa", "b": "i-bbbb", "x": "i-xxxx"}
NODES = {instance: node for node, instance in INSTANCES.items()}
ALLOCATION, TABLE, DESTINATION = "eip-2zeerraiwb7ujsxdc0001", "vtb-bp145q7glnuzd0001", "10.8.0.0/24"
KEY_ID, SECRET, TOKEN = "STS.fakefakefake", "sts/secret+of=alibaba", "CAISfake//token+of=the=role"
TROUBLE = {
    "busy": (400, "Throttling.User"),
    "locked": (400, "TaskConflict"),
    "error": (503, "ServiceUnavailable"),
    "denied": (403, "Forbidden.RAM"),
    "credentials": (404, "InvalidAccessKeyId.NotFound"),
}


def answer(status, **words):
    return Answer(status, {"RequestId": "4EC47282-1B74-4534-BD0E-403F3EE64CAF", **words})


class Alibaba(Cloud):
    missing = "InvalidRouteTableId.NotFound"

    def __init__(self):
        super().__init__()
        self.nonces = set()

    def config(self):
        # It is elsewhere than those of other clouds.
        return {"metadata": "http://169.254.169.254"}

    def secrets(self):
        return [SECRET, TOKEN]

    def authorized(self, request):
        """As Alibaba's client signs it; a nonce counts once."""
        headers = {key.lower(): value for key, value in request.headers.items()}
        given = headers.get("authorization", "")
        signed = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        needed = {"host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"}
        nonce = headers.get("x-acs-signature-nonce")
        if not needed <= set(signed) or headers.get("x-acs-security-token") != TOKEN or nonce in self.nonces:
            return False
        self.nonces.add(nonce)
        now = datetime.datetime.now(datetime.timezone.utc)
        date = datetime.datetime.strptime(headers["x-acs-date"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
        if abs((now - date).total_seconds()) > 900:
            return False
        again = TeaRequest()
        again.method, again.pathname, again.query = request.method, request.path, request.query
        again.headers = {name: headers[name] for name in signed}
        hashed = Util.hex_encode(Util.hash(request.body, "ACS3-HMAC-SHA256"))
        return given == Util.get_authorization(again, "ACS3-HMAC-SHA256", hashed, KEY_ID, SECRET)

    def action(self, request):
        return request.headers.get("x-acs-action", "none")

    def changes(self, request):
        return not self.action(request).startswith("Describe")

    def label(self, request):
        return self.action(request)

    def trouble(self, kind):
        status, code = TROUBLE.get(kind, (404, self.missing))
        return answer(status, Code=code, Message=f"fake: {code}", HostId="vpc.eu-central-1.aliyuncs.com")

    def metadata(self, request):
        if request.path == "/latest/api/token":
            good = request.method == "PUT" and request.headers.get("X-aliyun-ecs-metadata-token-ttl-seconds")
            return Answer(200, f"token-of-{request.node}") if good else Answer(400, "")
        if request.headers.get("X-aliyun-ecs-metadata-token") != f"token-of-{request.node}":
            return Answer(403, "")
        expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=6)
        values = {
            "region-id": "eu-central-1",
            "instance-id": INSTANCES[request.node],
            "ram/security-credentials/": "gateway",
            "ram/security-credentials/gateway": {
                "Code": "Success", "AccessKeyId": KEY_ID, "AccessKeySecret": SECRET, "SecurityToken": TOKEN,
                "LastUpdated": "2026-11-22T10:00:00Z", "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        }  # fmt: skip
        path = request.path.removeprefix("/latest/meta-data/")
        return Answer(200, values[path]) if path in values else Answer(404, "")

    def answer(self, request):
        method = getattr(self, self.action(request), None)
        if method is None or request.headers.get("x-acs-version") != "2016-04-28" or request.query.get("RegionId") != "eu-central-1":
            return answer(404, Code="InvalidAction.NotFound", Message="fake")
        return method(request.query)


class AlibabaEip(Alibaba):
    hook = "alibaba-eip"

    def __init__(self):
        super().__init__()
        self.state = {"instance": None, "type": "EcsInstance", "status": "Available"}

    def config(self):
        return {"allocation_id": ALLOCATION, **super().config()}

    def wrong_config(self):
        return {"allocation_id": "eip-none"}

    def owner(self):
        return NODES.get(self.state["instance"]) if self.state["status"] == "InUse" else None

    def give(self, node):
        self.state = {"instance": INSTANCES.get(node), "type": "EcsInstance", "status": "InUse" if node else "Available"}

    def DescribeEipAddresses(self, query):
        state = self.seen()
        if query.get("AllocationId") != ALLOCATION:
            return answer(200, TotalCount=0, PageNumber=1, PageSize=10, EipAddresses={"EipAddress": []})
        running = self.running()
        eip = {
            "AllocationId": ALLOCATION, "IpAddress": "203.0.113.60", "RegionId": "eu-central-1", "Bandwidth": "100", "ISP": "BGP",
            "Status": running[0]["status"] if running else state["status"],
            "InstanceId": running[0]["instance"] if running else state["instance"] or "",
            "InstanceType": state["type"] if state["instance"] else "", "Tags": {"Tag": []},
        }  # fmt: skip
        return answer(200, TotalCount=1, PageNumber=1, PageSize=10, EipAddresses={"EipAddress": [eip]})

    def AssociateEipAddress(self, query):
        if query.get("AllocationId") != ALLOCATION or query.get("InstanceId") not in NODES:
            return self.trouble("missing")
        if self.running() or self.state["status"] != "Available":
            return answer(400, Code="IncorrectEipStatus", Message="fake: the status of the EIP does not allow that")
        new = {"instance": query["InstanceId"], "type": query["InstanceType"], "status": "InUse"}
        self.start(lambda state: state.update(new), status="Associating", instance=query["InstanceId"])
        return answer(200)

    def UnassociateEipAddress(self, query):
        if query.get("AllocationId") != ALLOCATION or (query.get("InstanceId"), query.get("InstanceType")) != (
            self.state["instance"],
            self.state["type"],
        ):
            return answer(404, Code="InvalidInstanceId.NotFound", Message="fake")
        if self.running() or self.state["status"] != "InUse":
            return answer(400, Code="IncorrectEipStatus", Message="fake: the status of the EIP does not allow that")
        new = {"instance": None, "status": "Available"}
        self.start(lambda state: state.update(new), status="Unassociating", instance=self.state["instance"])
        return answer(200)


class AlibabaRoute(Alibaba):
    hook = "alibaba-route"

    def __init__(self):
        super().__init__()
        self.state = {"hop": None, "type": "Instance"}

    def config(self):
        return {"destination": DESTINATION, "route_table": TABLE, **super().config()}

    def wrong_config(self):
        return {"route_table": "vtb-none"}

    def owner(self):
        return NODES.get(self.state["hop"])

    def give(self, node):
        self.state["hop"] = INSTANCES.get(node)

    def DescribeRouteEntryList(self, query):
        if query.get("RouteTableId") != TABLE:
            return self.trouble("missing")
        hop, entries = self.seen()["hop"], []
        if hop and query.get("DestinationCidrBlock") == DESTINATION:
            running = bool(self.running())
            entries.append({
                "RouteEntryId": "rte-1", "RouteTableId": TABLE, "DestinationCidrBlock": DESTINATION, "Type": "Custom", "IpVersion": "IPv4",
                "Status": "Modifying" if running else "Available",
                "NextHops": {"NextHop": [{"NextHopId": hop, "NextHopType": self.state["type"], "Enabled": 1, "Weight": 0}]},
            })  # fmt: skip
        return answer(200, TotalCount=len(entries), RouteEntrys={"RouteEntry": entries})

    def ModifyRouteEntry(self, query, prefix="New"):
        if query.get("RouteTableId") != TABLE or query.get("DestinationCidrBlock") != DESTINATION:
            return self.trouble("missing")
        if bool(prefix) != bool(self.state["hop"]) or query.get(f"{prefix}NextHopId") not in NODES:
            return answer(404, Code="InvalidRouteEntry.NotFound" if prefix else "RouterEntryConflict.Duplicated", Message="fake")
        if self.running():
            return self.trouble("locked")
        new = {"hop": query[f"{prefix}NextHopId"], "type": query[f"{prefix}NextHopType"]}
        self.start(lambda state: state.update(new))
        return answer(200)

    def CreateRouteEntry(self, query):
        return self.ModifyRouteEntry(query, prefix="")
