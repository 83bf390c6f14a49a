"""Tencent Cloud's VPC API: an EIP and a route table. Signatures are computed again by Tencent's own client (test_signed)."""

import hashlib
import json
import time

from tencentcloud.common.sign import Sign

from .cloud import Answer, Cloud

INSTANCES = {"a": "ins-aaaa", "b": "ins-bbbb", "x": "ins-xxxx"}
ADDRESSES = {"a": "10.0.1.4", "b": "10.0.1.5", "x": "10.0.1.6"}
NODES = {instance: node for node, instance in INSTANCES.items()} | {address: node for node, address in ADDRESSES.items()}
ADDRESS_ID, TABLE, DESTINATION = "eip-11112222", "rtb-11112222", "10.8.0.0/24"
KEY_ID, SECRET, TOKEN = "AKIDfakefakefake", "tmp/secret+of=tencent", "fake-token+of=the/role"
TROUBLE = {
    "busy": "RequestLimitExceeded",
    "locked": "OperationDenied.MutexTaskRunning",
    "error": "InternalError",
    "denied": "AuthFailure.UnauthorizedOperation",
    "credentials": "AuthFailure.SignatureFailure",
}


def answer(**words):
    return Answer(200, {"Response": {**words, "RequestId": "3c140219-cfe9-470e-b241-907877d6fb03"}})


def error(code):
    return answer(Error={"Code": code, "Message": f"fake: {code}"})


class Tencent(Cloud):
    missing = "ResourceNotFound"

    def config(self):
        # It is elsewhere than those of other clouds.
        return {"metadata": "http://169.254.169.254"}

    def secrets(self):
        return [SECRET, TOKEN]

    def authorized(self, request):
        headers = request.headers
        stamp = headers.get("X-TC-Timestamp", "0")
        if abs(time.time() - int(stamp)) > 300 or headers.get("X-TC-Token") != TOKEN:
            return False
        date = time.strftime("%Y-%m-%d", time.gmtime(int(stamp)))
        canonical = (
            f"{request.method}\n{request.path}\n\ncontent-type:{headers['Content-Type']}\nhost:{headers['Host']}\n\ncontent-type;host\n"
            + hashlib.sha256(request.body).hexdigest()
        )
        text = f"TC3-HMAC-SHA256\n{stamp}\n{date}/vpc/tc3_request\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = Sign.sign_tc3(SECRET, date, "vpc", text)
        scope = f"TC3-HMAC-SHA256 Credential={KEY_ID}/{date}/vpc/tc3_request, SignedHeaders=content-type;host"
        return headers.get("Authorization") == f"{scope}, Signature={signature}"

    def action(self, request):
        return request.headers.get("X-TC-Action", "none")

    def changes(self, request):
        return not self.action(request).startswith("Describe")

    def label(self, request):
        return self.action(request)

    def trouble(self, kind):
        return error(TROUBLE.get(kind, self.missing))

    def metadata(self, request):
        values = {
            "placement/region": "eu-frankfurt",
            "instance-id": INSTANCES[request.node],
            "local-ipv4": ADDRESSES[request.node],
            "cam/security-credentials/": "gateway",
            "cam/security-credentials/gateway": json.dumps({
                "TmpSecretId": KEY_ID, "TmpSecretKey": SECRET, "Token": TOKEN, "ExpiredTime": int(time.time()) + 3600,
                "Expiration": "2026-11-22T16:00:00Z", "Code": "Success",
            }),
        }  # fmt: skip
        path = request.path.removeprefix("/latest/meta-data/")
        return Answer(200, values[path]) if path in values else Answer(404, "")

    def answer(self, request):
        method = getattr(self, self.action(request), None)
        if method is None or request.headers.get("X-TC-Version") != "2017-03-12" or request.headers.get("X-TC-Region") != "eu-frankfurt":
            return error("InvalidAction")
        return method(request.json())


class TencentEip(Tencent):
    hook = "tencent-eip"
    missing = "InvalidAddressId.NotFound"

    def __init__(self):
        super().__init__()
        self.state = {"instance": None}

    def config(self):
        return {"address_id": ADDRESS_ID, **super().config()}

    def wrong_config(self):
        return {"address_id": "eip-none"}

    def owner(self):
        return NODES.get(self.state["instance"])

    def give(self, node):
        self.state["instance"] = INSTANCES.get(node)

    def DescribeAddresses(self, query):
        if query.get("AddressIds") != [ADDRESS_ID]:
            return self.trouble("missing")
        running, instance = self.running(), self.seen()["instance"]
        status = running[0]["status"] if running else "BIND" if instance else "UNBIND"
        address = {
            "AddressId": ADDRESS_ID, "AddressIp": "203.0.113.61", "AddressStatus": status, "AddressType": "EIP",
            "InstanceId": running[0]["instance"] if running else instance, "NetworkInterfaceId": None, "PrivateAddressIp": None,
        }  # fmt: skip
        return answer(TotalCount=1, AddressSet=[address])

    def AssociateAddress(self, query):
        if query.get("AddressId") != ADDRESS_ID or query.get("InstanceId") not in NODES:
            return self.trouble("missing")
        if self.running() or self.state["instance"]:
            return error("InvalidAddressIdStatus.NotPermit")
        return self.task("BINDING", query["InstanceId"], query["InstanceId"])

    def DisassociateAddress(self, query):
        if query.get("AddressId") != ADDRESS_ID:
            return self.trouble("missing")
        if self.running() or not self.state["instance"]:
            return error("InvalidAddressIdStatus.NotPermit")
        return self.task("UNBINDING", self.state["instance"], None)

    def task(self, status, instance, new):
        operation = self.start(lambda state: state.update(instance=new), status=status, instance=instance)
        return answer(TaskId=str(operation["id"]))

    def DescribeTaskResult(self, query):
        operation = self.operations.get(str(query.get("TaskId")))
        if not operation:
            return error("InvalidParameterValue")
        result = "RUNNING" if not operation["done"] else "FAILED" if operation["fails"] else "SUCCESS"
        return answer(TaskId=operation["id"], Result=result)


class TencentRoute(Tencent):
    hook = "tencent-route"
    asynchronous = False

    def __init__(self):
        super().__init__()
        self.state = {"hop": None, "kind": "NORMAL_CVM", "enabled": True}

    def config(self):
        return {"destination": DESTINATION, "route_table": TABLE, **super().config()}

    def wrong_config(self):
        return {"route_table": "rtb-none"}

    def owner(self):
        return NODES.get(self.state["hop"])

    def give(self, node):
        self.state["hop"] = ADDRESSES.get(node)

    def DescribeRouteTables(self, query):
        if query.get("RouteTableIds") != [TABLE]:
            return self.trouble("missing")
        state = self.seen()
        routes = [{"DestinationCidrBlock": "10.0.0.0/16", "GatewayType": "LOCAL", "GatewayId": "Local", "RouteItemId": "rti-0", "Enabled": True}]
        if state["hop"]:
            routes.append({
                "DestinationCidrBlock": DESTINATION, "GatewayType": state["kind"], "GatewayId": state["hop"], "RouteId": 7,
                "RouteItemId": "rti-7", "RouteType": "USER", "RouteTableId": TABLE, "Enabled": state["enabled"], "RouteDescription": "",
            })  # fmt: skip
        return answer(TotalCount=1, RouteTableSet=[{"RouteTableId": TABLE, "VpcId": "vpc-1", "RouteTableName": "gw", "RouteSet": routes}])

    def ReplaceRoutes(self, query, create=False):
        (route,) = query["Routes"]
        if query.get("RouteTableId") != TABLE or route["DestinationCidrBlock"] != DESTINATION or route["GatewayId"] not in NODES:
            return self.trouble("missing")
        if create == bool(self.state["hop"]) or (not create and route.get("RouteItemId") != "rti-7"):
            return error("InvalidParameterValue.Duplicate" if create else "ResourceNotFound")
        self.apply(lambda state: state.update(hop=route["GatewayId"], kind=route["GatewayType"]))
        return answer(OldRouteSet=[], NewRouteSet=[])

    def CreateRoutes(self, query):
        return self.ReplaceRoutes(query, create=True)
