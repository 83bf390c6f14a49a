"""Oracle Cloud: a secondary private IP and two VNICs. Signatures are verified; the client oci agrees (test_signed)."""

import base64
import hashlib
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from .cloud import Answer, Cloud

VNICS = {"a": "ocid1.vnic.oc1.fra.aaaa", "b": "ocid1.vnic.oc1.fra.bbbb", "x": "ocid1.vnic.oc1.fra.xxxx"}
NODES = {vnic: node for node, vnic in VNICS.items()}
PRIVATE_IP = "ocid1.privateip.oc1.fra.cccc"
TENANCY, USER, FINGERPRINT = "ocid1.tenancy.oc1..tttt", "ocid1.user.oc1..uuuu", "20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34"
KEY_FILE = Path(__file__).resolve().parents[2] / "vectors" / "sign" / "oci-pkcs8.pem"
TROUBLE = {
    "busy": (429, "TooManyRequests"),
    "locked": (409, "IncorrectState"),
    "error": (500, "InternalServerError"),
    "denied": (404, "NotAuthorizedOrNotFound"),
    "missing": (404, "NotAuthorizedOrNotFound"),
    "credentials": (401, "NotAuthenticated"),
}


class Oci(Cloud):
    hook = "oci-private-ip"
    base = "/20160918"
    asynchronous = False

    def __init__(self):
        super().__init__()
        self.state = {"vnic": None}
        self.primary = False
        self.public_key = load_pem_private_key(KEY_FILE.read_bytes(), None).public_key()
        self.key_file = None  # a copy with mode 0600, made by the test

    def config(self):
        return {"private_ip": PRIVATE_IP, "tenancy": TENANCY, "user": USER, "fingerprint": FINGERPRINT, "key_file": self.key_file}

    def secrets(self):
        """A line of the key."""
        return [KEY_FILE.read_text().splitlines()[3]]

    def wrong_config(self):
        return {"private_ip": "ocid1.privateip.oc1.fra.zzzz"}

    def owner(self):
        return NODES.get(self.state["vnic"])

    def give(self, node):
        self.state["vnic"] = VNICS.get(node)

    def authorized(self, request):
        """RSA over what the header names, which must be all that Oracle asks for."""
        fields = dict(re.findall(r'(\w+)="([^"]*)"', request.headers.get("Authorization", "")))
        names = fields.get("headers", "").split()
        needed = {"date", "(request-target)", "host"} | ({"content-length", "content-type", "x-content-sha256"} if request.body else set())
        if not needed <= set(names) or fields.get("keyId") != f"{TENANCY}/{USER}/{FINGERPRINT}" or fields.get("algorithm") != "rsa-sha256":
            return False
        if request.body and request.headers["x-content-sha256"] != base64.b64encode(hashlib.sha256(request.body).digest()).decode():
            return False
        values = {"(request-target)": f"{request.method.lower()} {request.path}"}
        text = "\n".join(f"{name}: {values.get(name) or request.headers.get(name)}" for name in names)
        try:
            self.public_key.verify(base64.b64decode(fields["signature"]), text.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def trouble(self, kind):
        status, code = TROUBLE[kind]
        return Answer(status, {"code": code, "message": f"fake: {code}"}, {"opc-request-id": "1"})

    def metadata(self, request):
        if request.headers.get("Authorization") != "Bearer Oracle":
            return Answer(401, "")
        if request.path == "/opc/v2/instance/":
            return Answer(200, {"id": "ocid1.instance.oc1.fra.i", "canonicalRegionName": "eu-frankfurt-1", "region": "eu-frankfurt-1"})
        if request.path == "/opc/v2/vnics/":
            return Answer(200, [
                {"vnicId": VNICS[request.node], "macAddr": "02:00:17:00:00:01", "privateIp": "10.0.1.4", "vlanTag": 1, "nicIndex": 0},
                {"vnicId": "ocid1.vnic.oc1.fra.second", "macAddr": "02:00:17:00:00:02", "privateIp": "10.0.2.4", "vlanTag": 2, "nicIndex": 0},
            ])  # fmt: skip
        return Answer(404, "")

    def answer(self, request):
        if request.path != f"{self.base}/privateIps/{PRIVATE_IP}":
            return self.trouble("missing")
        if request.method == "PUT":
            vnic = request.json().get("vnicId")
            if vnic not in NODES:
                return self.trouble("missing")
            self.apply(lambda state: state.update(vnic=vnic))
            return Answer(200, self.private_ip(self.state), {"opc-request-id": "1"})
        return Answer(200, self.private_ip(self.seen()), {"opc-request-id": "1"})

    def private_ip(self, state):
        return {
            "id": PRIVATE_IP, "availabilityDomain": "ad1", "compartmentId": "c", "displayName": "vip", "ipAddress": "10.0.1.100",
            "isPrimary": self.primary, "subnetId": "ocid1.subnet.oc1.fra.s", "vnicId": state["vnic"], "definedTags": {}, "freeformTags": {},
            "timeCreated": "2026-01-01T00:00:00.000Z",
        }  # fmt: skip
