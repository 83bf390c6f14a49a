"""Cloudflare: the DNS records of one zone. Shapes from its API's documentation; the client cloudflare agrees (test_dns)."""

import copy

from .cloud import Answer, Cloud

ZONE = "023e105f4ecef8ad9ca31a8372d0c353"
NAME = "vpn.example.com"
ADDRESSES = {"a": "203.0.113.7", "b": "203.0.113.8", "x": "198.51.100.1"}
NODES = {address: node for node, address in ADDRESSES.items()}
TROUBLE = {
    "busy": (429, 971, "Please wait and consider throttling your request speed"),
    "locked": (409, 1000, "fake: another change is running"),
    "error": (502, 0, "bad gateway"),
    "denied": (403, 10000, "Authentication error"),
    "missing": (404, 7003, "Could not route to the zone, perhaps your object identifier is invalid?"),
    "credentials": (401, 10000, "Authentication error"),
}


class Cloudflare(Cloud):
    hook = "cloudflare-dns"
    base = "/client/v4"
    asynchronous = False
    token = "cloudflare-token"

    def __init__(self):
        super().__init__()
        self.state = {"records": {}}
        self.made = 0
        self.before_create = None  # called once before a record is made: a race

    def config(self):
        return {"zone": ZONE, "name": NAME, "addresses": " ".join(f"{n}={a}" for n, a in ADDRESSES.items()), "token": self.token}

    def secrets(self):
        return [self.token]

    def wrong_config(self):
        return {"zone": "f" * 32}

    def records(self, kind="A"):
        return [record["content"] for record in self.state["records"].values() if record["type"] == kind]

    def owner(self):
        """Two records are nobody's."""
        found = self.records()
        return NODES.get(found[0]) if len(found) == 1 else None

    def give(self, node):
        self.state["records"] = {}
        if node:
            self.add(self.state, self.record(ADDRESSES[node]))

    def record(self, content, **words):
        self.made += 1
        # Random in reality: the order in which they were made says nothing.
        number = f"{self.made * 7919 % 9973:032x}"
        return {
            "id": number, "name": NAME, "type": "A", "content": content, "proxiable": True, "proxied": False, "ttl": 60,
            "settings": {}, "meta": {}, "comment": None, "tags": [],
            "created_on": "2026-01-01T00:00:00.000000Z", "modified_on": "2026-01-01T00:00:00.000000Z", **words,
        }  # fmt: skip

    @staticmethod
    def add(state, record):
        state["records"][record["id"]] = record

    def authorized(self, request):
        return request.headers.get("Authorization") == f"Bearer {self.token}"

    def trouble(self, kind):
        return self.refusal(*TROUBLE[kind])

    def refusal(self, status, code, message):
        return Answer(status, {"success": False, "errors": [{"code": code, "message": message}], "messages": [], "result": None})

    def metadata(self, request):
        return Answer(404, "not found")

    def answer(self, request):
        root = f"{self.base}/zones/{ZONE}/dns_records"
        if request.path == root and request.method == "GET":
            return self.listed(request.query)
        if request.path == root and request.method == "POST":
            return self.create(request.json())
        if request.path.startswith(root + "/"):
            return self.one(request, request.path.rpartition("/")[2])
        return self.trouble("missing")

    def listed(self, query):
        records = [
            record
            for record in self.seen()["records"].values()
            if query.get("type") in (None, record["type"]) and query.get("name.exact") in (None, record["name"])
        ]
        page, size = int(query.get("page", 1)), int(query.get("per_page", 100))
        count = len(records)
        records = records[(page - 1) * size : page * size]
        info = {"page": page, "per_page": size, "count": len(records), "total_count": count, "total_pages": -(-count // size)}
        return Answer(200, {"success": True, "errors": [], "messages": [], "result": records, "result_info": info})

    def create(self, wanted):
        if self.before_create:
            race, self.before_create = self.before_create, None
            race()
        if self.is_there(wanted):
            return self.refusal(400, 81058, "An identical record already exists.")
        record = self.record(**wanted)
        self.apply(lambda state: self.add(state, record))
        return self.good(record)

    def is_there(self, wanted, but=None):
        """A record of that type, name and content, apart from one with that number."""
        same = ("type", "name", "content")
        records = (record for number, record in self.state["records"].items() if number != but)
        return any(all(record[key] == wanted[key] for key in same) for record in records)

    def one(self, request, number):
        if number not in self.state["records"]:
            return self.refusal(404, 81044, "Record does not exist.")
        if request.method == "DELETE":
            self.apply(lambda state: state["records"].pop(number))
            return self.good({"id": number})
        if request.method == "PATCH" and self.is_there({**self.state["records"][number], **request.json()}, but=number):
            return self.refusal(400, 81058, "An identical record already exists.")
        if request.method == "PATCH":
            self.apply(lambda state: state["records"][number].update(request.json()))
        return self.good(copy.deepcopy(self.state["records"][number]))

    def good(self, result):
        return Answer(200, {"success": True, "errors": [], "messages": [], "result": result})
