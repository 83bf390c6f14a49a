"""The hooks for AWS before moto, an imitation of AWS by others, with its authentication switched on: signatures are
computed again there, and the policies that the hooks document are enforced.

What moto does not do as AWS does: it knows no ARNs in EC2 policies, so that resources become "*" here; it does not move a
secondary private address and does not find it by filter, so that aws-secondary-ip is only looked with and refused; of the
changing calls only AssociateAddress knows a dry run.
"""

import json
import logging
import re
import threading
import unittest

from cases import AGAIN, DONE, GIVE_UP, NOT_MINE
from fake import aws
from rig import HOOKS, Rig

PORT = 8001
DESTINATION = "10.8.0.0/24"
# moto is one for the whole process.
alone = threading.Lock()


def documented_policy(hook):
    """The policy in the comment at the hook's head."""
    lines = [line.removeprefix("#").strip() for line in (HOOKS / hook).read_text().splitlines() if line.startswith("#")]
    text = " ".join(lines)
    policy, _ = json.JSONDecoder().raw_decode(text[text.index('{"Version"') :])
    return policy


class Moto(unittest.TestCase):
    def setUp(self):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        alone.acquire()
        self.addCleanup(alone.release)
        self.cloud = type("Identity", (aws.AwsEip,), {"hook": "aws-eip", "config": lambda _: {}, "eni_of": lambda _, node: self.enis[node]})()
        self.rig = Rig(self.cloud)
        self.addCleanup(self.rig.close)
        self.enis = {}
        self.servers = [space.call(self.serve) for space in self.rig.nodes.values()]
        self.rig.nodes["a"].call(self.prepare)

    def serve(self):
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer("127.0.0.1", PORT, verbose=False)
        server.start()
        self.addCleanup(server.stop)
        return server

    def client(self, service, key="setup", secret="setup"):
        import boto3

        words = {"aws_access_key_id": key, "aws_secret_access_key": secret}
        return boto3.client(service, region_name="eu-central-1", endpoint_url=f"http://127.0.0.1:{PORT}", **words)

    def authentication(self, on):
        import urllib.request

        body = b"0" if on else b"inf"
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}/moto-api/reset-auth", body, {"Content-Type": "text/plain"})
        urllib.request.urlopen(request).read()

    def prepare(self):
        self.authentication(on=False)
        self.ec2, self.iam = ec2, iam = self.client("ec2"), self.client("iam")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
        for node in "ab":
            self.enis[node] = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
        self.eip = ec2.allocate_address(Domain="vpc")["AllocationId"]
        self.table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=self.table, DestinationCidrBlock=DESTINATION, NetworkInterfaceId=self.enis["b"])
        self.user = f"user-{id(self)}"
        iam.create_user(UserName=self.user)
        self.key = iam.create_access_key(UserName=self.user)["AccessKey"]

    def allow(self, policy):
        self.rig.nodes["a"].call(lambda: self.put(policy))

    def put(self, policy):
        self.authentication(on=False)
        for statement in policy["Statement"]:
            statement["Resource"] = "*"
        self.iam.put_user_policy(UserName=self.user, PolicyName="hook", PolicyDocument=json.dumps(policy))
        self.authentication(on=True)

    def hook(self, name, node, verb, secret=None, environment=None, **keys):
        self.cloud.hook = name
        config = self.rig.config(
            node, endpoint=f"http://127.0.0.1:{PORT}", access_key_id=self.key["AccessKeyId"],
            secret_access_key=secret or self.key["SecretAccessKey"], **keys,
        )
        self.rig.master(node)
        return self.rig.run(node, verb, config=config, environment=environment)

    def expect(self, result, code, *words):
        self.assertEqual(result.code, code, result.said)
        for word in words:
            self.assertIn(word, result.said)

    def moves(self, name, **keys):
        """To each node in turn, with nothing but the documented policy."""
        self.allow(documented_policy(name))
        for node in "aba":
            self.expect(self.hook(name, node, "assert", **keys), DONE, "here now")
            self.expect(self.hook(name, "a", "verify", **keys), DONE if node == "a" else NOT_MINE)
        self.expect(self.hook(name, "a", "assert", **keys), DONE, "already")

    def refusals(self, name, action, knows_dry_run=False, **keys):
        """A wrong signature, then a policy without the changing call, which a dry run finds out too."""
        self.expect(self.hook(name, "b", "assert", secret="wrong/secret", **keys), GIVE_UP, "AuthFailure")
        policy = documented_policy(name)
        policy["Statement"] = [each for each in policy["Statement"] if "Describe" in each["Action"]]
        self.allow(policy)
        self.expect(self.hook(name, "b", "assert", **keys), GIVE_UP, action)
        self.expect(self.hook(name, "b", "assert", environment={"WGHA_DRY_RUN": "1"}, **keys), GIVE_UP, action)
        self.allow(documented_policy(name))
        if knows_dry_run:
            self.expect(self.hook(name, "b", "assert", environment={"WGHA_DRY_RUN": "1"}, **keys), DONE, "allowed")
            self.expect(self.hook(name, "b", "verify", **keys), NOT_MINE)

    def test_elastic_ip(self):
        self.moves("aws-eip", allocation_id=self.eip)
        self.refusals("aws-eip", "AssociateAddress", knows_dry_run=True, allocation_id=self.eip)
        self.expect(self.hook("aws-eip", "a", "assert", allocation_id="eipalloc-none"), GIVE_UP, "InvalidAllocationID.NotFound")

    def test_route(self):
        keys = {"destination": DESTINATION, "route_tables": self.table}
        self.moves("aws-route", **keys)
        self.refusals("aws-route", "ReplaceRoute", **keys)
        self.rig.nodes["a"].call(self.no_route)
        self.expect(self.hook("aws-route", "a", "verify", **keys), NOT_MINE, "nobody")
        self.expect(self.hook("aws-route", "a", "assert", **keys), DONE)

    def no_route(self):
        self.authentication(on=False)
        self.ec2.delete_route(RouteTableId=self.table, DestinationCidrBlock=DESTINATION)
        self.authentication(on=True)

    def test_secondary_ip(self):
        keys = {"private_ip": "10.0.1.9"}
        self.allow(documented_policy("aws-secondary-ip"))
        self.expect(self.hook("aws-secondary-ip", "b", "verify", **keys), NOT_MINE, "nobody")
        self.refusals("aws-secondary-ip", "AssignPrivateIpAddresses", **keys)

    def test_credentials_of_a_role(self):
        """As they come from the metadata service, with a session token that is signed too."""
        got = self.rig.nodes["a"].call(self.assume)
        changed = {"AccessKeyId": got["AccessKeyId"], "SecretAccessKey": got["SecretAccessKey"], "Token": got["SessionToken"]}
        original = self.cloud.metadata

        def metadata(request):
            answer = original(request)
            if isinstance(answer.body, dict):
                answer.body.update(changed)
            return answer

        self.cloud.metadata = metadata
        config = self.rig.config("a", endpoint=f"http://127.0.0.1:{PORT}", allocation_id=self.eip)
        self.expect(self.rig.run("a", "assert", config=config), DONE, "here now")
        # Taken back before their time, while they are remembered: new ones, of the right role, are fetched the next time.
        cache = next((self.rig.directory / "a" / "cache").glob("*.credentials"))
        cache.write_text(re.sub(re.escape(got["SecretAccessKey"]), "stale", cache.read_text()))
        self.expect(self.rig.run("a", "verify", config=config), AGAIN, "new credentials")
        self.expect(self.rig.run("a", "verify", config=config), DONE)

    def assume(self):
        trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
        role = self.iam.create_role(RoleName=self.user, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        policy = documented_policy("aws-eip")
        for statement in policy["Statement"]:
            statement["Resource"] = "*"
        self.iam.put_role_policy(RoleName=self.user, PolicyName="hook", PolicyDocument=json.dumps(policy))
        got = self.client("sts").assume_role(RoleArn=role, RoleSessionName="gw")["Credentials"]
        self.authentication(on=True)
        return got
