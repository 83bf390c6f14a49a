"""Route 53: the records of one hosted zone. Shapes from botocore's model; moto (test_dns) verifies signatures and policies."""

import re

from . import aws
from .cloud import Answer

ZONE, NAME = "Z0123456789ABCDEFGHIJ", "vpn.example.com"
ADDRESSES = {"a": "203.0.113.7", "b": "203.0.113.8", "x": "198.51.100.1"}
NODES = {address: node for node, address in ADDRESSES.items()}
TROUBLE = {
    "busy": (400, "Throttling"),
    "locked": (400, "PriorRequestNotComplete"),
    "error": (500, "InternalFailure"),
    "denied": (403, "AccessDenied"),
    "credentials": (403, "InvalidClientTokenId"),
    "missing": (404, "NoSuchHostedZone"),
}
XMLNS = 'xmlns="https://route53.amazonaws.com/doc/2013-04-01/"'
HEAD = '<?xml version="1.0"?>\n'


class Route53(aws.Aws):
    hook = "route53-dns"

    def __init__(self):
        super().__init__()
        self.state = {"records": {}}  # (name, type): (ttl, addresses)

    def config(self):
        return {"zone": ZONE, "name": NAME, "addresses": " ".join(f"{n}={a}" for n, a in ADDRESSES.items())}

    def wrong_config(self):
        return {"zone": "Z999"}

    def records(self, kind="A"):
        return list(self.state["records"].get((f"{NAME}.", kind), (0, []))[1])

    def owner(self):
        found = self.records()
        return NODES.get(found[0]) if len(found) == 1 else None

    def give(self, node):
        self.state["records"] = {("zz.example.com.", "A"): (60, ["198.51.100.9"])}
        if node:
            self.state["records"][(f"{NAME}.", "A")] = (300, [ADDRESSES[node]])

    def authorized(self, request):
        signed = request.headers.get("Authorization", "")
        return (
            f"AWS4-HMAC-SHA256 Credential={aws.KEY}/" in signed
            and "/us-east-1/route53/aws4_request" in signed
            and "x-amz-security-token" in signed
            and request.headers.get("X-Amz-Security-Token") == aws.SESSION
        )

    def changes(self, request):
        return request.method != "GET"

    def label(self, request):
        return f"{request.method} {request.path}"

    def trouble(self, kind):
        status, code = TROUBLE[kind]
        return Answer(
            status,
            f"{HEAD}<ErrorResponse {XMLNS}><Error><Type>Sender</Type><Code>{code}</Code><Message>fake: {code}</Message></Error>"
            "<RequestId>b25f48e8-84fd-11e6-80d9-574e0c4664cb</RequestId></ErrorResponse>",
        )

    def answer(self, request):
        match = re.fullmatch(r"/2013-04-01/hostedzone/(\w+)/rrset/?", request.path)
        if not match or match[1] != ZONE:
            return self.trouble("missing")
        return self.listed(request.query) if request.method == "GET" else self.change(request.body.decode())

    def listed(self, query):
        # Sorted by the labels from the last to the first; what is asked for is only where it begins.
        def order(key):
            return (key[0].rstrip(".").split(".")[::-1], key[1])

        records = sorted(self.seen()["records"].items(), key=lambda item: order(item[0]))
        records = [item for item in records if order(item[0]) >= order((query["name"], query["type"]))]
        text = ""
        for (name, kind), (ttl, addresses) in records[: int(query["maxitems"])]:
            values = "".join(f"<ResourceRecord><Value>{address}</Value></ResourceRecord>" for address in addresses)
            text += (
                f"<ResourceRecordSet><Name>{name}</Name><Type>{kind}</Type><TTL>{ttl}</TTL>"
                f"<ResourceRecords>{values}</ResourceRecords></ResourceRecordSet>"
            )
        return Answer(
            200,
            f"{HEAD}<ListResourceRecordSetsResponse {XMLNS}><ResourceRecordSets>{text}</ResourceRecordSets>"
            "<IsTruncated>false</IsTruncated><MaxItems>1</MaxItems></ListResourceRecordSetsResponse>",
        )

    def change(self, body):
        def one(tag):
            return re.findall(f"<{tag}>([^<]*)</{tag}>", body)

        (action,), (name,), (kind,), (ttl,), values = map(one, ("Action", "Name", "Type", "TTL", "Value"))
        key, new = (name, kind), (int(ttl), values)
        if action == "DELETE" and self.state["records"].get(key) != new:
            return Answer(
                400,
                f"{HEAD}<InvalidChangeBatch {XMLNS}><Messages><Message>Tried to delete resource record set [name='{name}', type='{kind}'] "
                "but the values provided do not match the current values</Message></Messages></InvalidChangeBatch>",
            )
        self.apply(lambda state: state["records"].pop(key) if action == "DELETE" else state["records"].update({key: new}))
        return Answer(
            200,
            f"{HEAD}<ChangeResourceRecordSetsResponse {XMLNS}><ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status>"
            "<SubmittedAt>2026-11-22T10:00:00.000Z</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>",
        )
