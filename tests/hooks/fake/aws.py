"""AWS: EC2's Query API for an Elastic IP, a secondary private address and route tables; IMDSv2. The client boto3 agrees."""

import datetime
from xml.sax.saxutils import escape

from .cloud import Answer, Cloud

ENIS = {"a": "eni-0000000000000000a", "b": "eni-0000000000000000b", "x": "eni-0000000000000000c"}
NODES = {eni: node for node, eni in ENIS.items()}
MACS = {"a": "0a:00:00:00:00:0a", "b": "0a:00:00:00:00:0b"}
ADDRESSES = {"a": "10.0.1.4", "b": "10.0.1.5", "x": "10.0.1.6"}
SUBNET = "subnet-00000000000000001"
ALLOCATION = "eipalloc-00000000000000001"
VIP = "10.0.1.9"
TABLES = ("rtb-00000000000000001", "rtb-00000000000000002")
DESTINATION = "10.8.0.0/24"
KEY, SECRET, SESSION = "ASIAFAKEFAKEFAKEFAKE", "secret/access+key", "session//token+of=the=role"
TROUBLE = {
    "busy": (503, "RequestLimitExceeded"),
    "locked": (409, "IncorrectState"),
    "error": (500, "InternalError"),
    "denied": (403, "UnauthorizedOperation"),
    "credentials": (401, "AuthFailure"),
}


def error(status, code):
    return Answer(
        status,
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>{code}</Code><Message>fake: {code}</Message></Error>'
        "</Errors><RequestID>ea966190-f9aa-478e-9ede-example</RequestID></Response>",
    )


def xml(value):
    """Dicts as elements, lists as EC2 has them."""
    if isinstance(value, dict):
        return "".join(f"<{key}>{xml(each)}</{key}>" for key, each in value.items() if each is not None)
    if isinstance(value, list):
        return "".join(f"<item>{xml(each)}</item>" for each in value)
    return escape(str(value).lower() if isinstance(value, bool) else str(value))


class Aws(Cloud):
    asynchronous = False
    missing = "InvalidParameterValue"

    def __init__(self):
        super().__init__()
        self.state = {"eip": None, "private": None, "vip": None, "routes": dict.fromkeys(TABLES)}

    def secrets(self):
        return [SECRET, SESSION]

    def authorized(self, request):
        signed = request.headers.get("Authorization", "")
        return (
            signed.startswith(f"AWS4-HMAC-SHA256 Credential={KEY}/")
            and "/eu-central-1/ec2/aws4_request" in signed
            and "x-amz-security-token" in signed
            and request.headers.get("X-Amz-Security-Token") == SESSION
        )

    def changes(self, request):
        return not request.form().get("Action", "").startswith("Describe")

    def label(self, request):
        return request.form().get("Action", "none")

    def trouble(self, kind):
        return error(*TROUBLE[kind]) if kind in TROUBLE else error(400, self.missing)

    def metadata(self, request):
        path, token = request.path.removeprefix("/latest/"), f"imds-token-of-{request.node}"
        if path == "api/token":
            good = request.method == "PUT" and request.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            return Answer(200, token) if good else Answer(400, "")
        if request.headers.get("X-aws-ec2-metadata-token") != token:
            return Answer(401, "")
        card = f"meta-data/network/interfaces/macs/{MACS[request.node]}"
        expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=6)
        values = {
            "meta-data/placement/region": "eu-central-1",
            "meta-data/mac": MACS[request.node],
            f"{card}/interface-id": self.eni_of(request.node),
            f"{card}/subnet-id": SUBNET,
            "meta-data/iam/security-credentials/": "gateway",
            "meta-data/iam/security-credentials/gateway": {
                "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-11-22T10:00:00Z", "AccessKeyId": KEY,
                "SecretAccessKey": SECRET, "Token": SESSION, "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        }
        return Answer(200, values[path]) if path in values else Answer(404, "")

    def eni_of(self, node):
        return ENIS[node]

    def answer(self, request):
        form = request.form()
        action = form.pop("Action", "none")
        method = getattr(self, action, None)
        if method is None or form.pop("Version", "") != "2016-11-15":
            return error(400, "InvalidAction")
        dry = form.pop("DryRun", "false") == "true"
        if self.changes(request) and dry:
            return error(412, "DryRunOperation")
        body = method(form)
        if isinstance(body, Answer):
            return body
        name = f"{action}Response"
        return Answer(
            200,
            f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
            f"<requestId>59dbff89-35bd-4eac-99ed-be587EXAMPLE</requestId>{xml(body)}</{name}>",
        )

    # An Elastic IP.
    def DescribeAddresses(self, form):
        if form.get("AllocationId.1") != ALLOCATION:
            return error(400, "InvalidAllocationID.NotFound")
        state = self.seen()
        holder = state["eip"]
        return {
            "addressesSet": [{
                "publicIp": "203.0.113.40", "allocationId": ALLOCATION, "domain": "vpc",
                "associationId": f"eipassoc-{holder}" if holder else None, "networkInterfaceId": holder,
                "privateIpAddress": state["private"] or (ADDRESSES[NODES[holder]] if holder else None),
            }]
        }

    def AssociateAddress(self, form):
        eni = form["NetworkInterfaceId"]
        if form["AllocationId"] != ALLOCATION or eni not in NODES:
            return error(400, "InvalidAllocationID.NotFound")
        if self.state["eip"] and form.get("AllowReassociation") == "false":
            return error(400, "Resource.AlreadyAssociated")
        self.apply(lambda state: state.update(eip=eni, private=form.get("PrivateIpAddress")))
        return {"return": True, "associationId": f"eipassoc-{eni}"}

    def DisassociateAddress(self, form):
        if form["AssociationId"] != f"eipassoc-{self.state['eip']}":
            return error(400, "InvalidAssociationID.NotFound")
        self.apply(lambda state: state.update(eip=None, private=None))
        return {"return": True}

    # A secondary private address.
    def DescribeNetworkInterfaces(self, form):
        vip = self.seen()["vip"]
        wanted = {form[f"Filter.{n}.Name"]: form[f"Filter.{n}.Value.1"] for n in range(1, 9) if f"Filter.{n}.Name" in form}
        cards = []
        for node, eni in ENIS.items():
            addresses = [ADDRESSES[node], *([VIP] if vip == eni else [])]
            if wanted.get("addresses.private-ip-address", addresses[0]) not in addresses or wanted.get("subnet-id", SUBNET) != SUBNET:
                continue
            private = [{"privateIpAddress": each, "primary": each == addresses[0]} for each in addresses]
            cards.append({
                "networkInterfaceId": eni, "subnetId": SUBNET, "status": "in-use", "privateIpAddress": addresses[0],
                "sourceDestCheck": False, "privateIpAddressesSet": private,
            })
        return {"networkInterfaceSet": cards}

    def AssignPrivateIpAddresses(self, form):
        eni, address = form["NetworkInterfaceId"], form["PrivateIpAddress.1"]
        if eni not in NODES:
            return error(400, "InvalidNetworkInterfaceID.NotFound")
        if address != VIP:
            return error(400, "InvalidParameterValue")
        if self.state["vip"] and form.get("AllowReassignment") != "true":
            return error(400, "InvalidParameterValue")
        self.apply(lambda state: state.update(vip=eni))
        return {"networkInterfaceId": eni, "assignedPrivateIpAddressesSet": [{"privateIpAddress": address}], "return": True}

    def UnassignPrivateIpAddresses(self, form):
        if self.state["vip"] != form["NetworkInterfaceId"]:
            return error(400, "InvalidParameterValue")
        self.apply(lambda state: state.update(vip=None))
        return {"return": True}

    # Routes.
    def DescribeRouteTables(self, form):
        table = form.get("RouteTableId.1")
        if table not in TABLES:
            return error(400, "InvalidRouteTableID.NotFound")
        eni = self.seen()["routes"][table]
        routes = [
            {"destinationCidrBlock": "10.0.0.0/16", "gatewayId": "local", "state": "active", "origin": "CreateRouteTable"},
            {"destinationCidrBlock": "0.0.0.0/0", "networkInterfaceId": ENIS["x"], "state": "active", "origin": "CreateRoute"},
        ]
        if eni:
            routes.insert(1, {"destinationCidrBlock": DESTINATION, "networkInterfaceId": eni, "state": "active", "origin": "CreateRoute"})
        association = {"routeTableAssociationId": "rtbassoc-1", "routeTableId": table, "main": True}
        return {"routeTableSet": [{"routeTableId": table, "vpcId": "vpc-1", "routeSet": routes, "associationSet": [association]}]}

    def ReplaceRoute(self, form, create=False):
        table, eni = form["RouteTableId"], form["NetworkInterfaceId"]
        if table not in TABLES or eni not in NODES or form["DestinationCidrBlock"] != DESTINATION:
            return error(400, "InvalidRouteTableID.NotFound")
        if create == bool(self.state["routes"][table]):
            return error(400, "RouteAlreadyExists" if create else "InvalidParameterValue")
        self.apply(lambda state: state["routes"].update({table: eni}))
        return {"return": True}

    def CreateRoute(self, form):
        return self.ReplaceRoute(form, create=True)


class AwsEip(Aws):
    hook = "aws-eip"
    missing = "InvalidAllocationID.NotFound"

    def config(self):
        return {"allocation_id": ALLOCATION}

    def wrong_config(self):
        return {"allocation_id": "eipalloc-0000000000000000f"}

    def owner(self):
        return NODES.get(self.state["eip"])

    def give(self, node):
        self.state["eip"] = ENIS.get(node)


class AwsSecondaryIp(Aws):
    hook = "aws-secondary-ip"
    absence_is_seen = False

    def config(self):
        return {"private_ip": VIP}

    def wrong_config(self):
        return {"private_ip": "192.0.2.99"}

    def owner(self):
        return NODES.get(self.state["vip"])

    def give(self, node):
        self.state["vip"] = ENIS.get(node)


class AwsRoute(Aws):
    hook = "aws-route"
    missing = "InvalidRouteTableID.NotFound"

    def config(self):
        return {"destination": DESTINATION, "route_tables": " ".join(TABLES)}

    def wrong_config(self):
        return {"route_tables": "rtb-0000000000000000f"}

    def owner(self):
        holders = {NODES.get(eni) for eni in self.state["routes"].values()}
        return holders.pop() if len(holders) == 1 else "x"

    def give(self, node):
        for table in TABLES:
            self.state["routes"][table] = ENIS.get(node)
