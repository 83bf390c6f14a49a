"""The fake cloud is checked by the clouds' own clients: what they can read, change and name as an error is shaped as it should be.

Each takes the address or route away from "b" for "a", and sees an error of the kind that the hooks must tell apart.
"""

import unittest

import botocore.utils  # Here, as two threads that import it at once may wait for each other.
from fake import aws, azure, gcp, openstack, ovh, scaleway
from fake.digitalocean import ADDRESS, DROPLETS, DigitalOcean
from fake.hetzner import SERVERS, Hetzner
from rig import Rig


class Client(unittest.TestCase):
    make_cloud = None

    def setUp(self):
        self.cloud = self.make_cloud()
        self.cloud.operation_seconds = 0.3 if self.cloud.asynchronous else 0
        self.rig = Rig(self.cloud)
        self.addCleanup(self.rig.close)
        self.cloud.give("b")

    def inside(self, function):
        return self.rig.nodes["a"].call(function)

    def wrong_credentials(self):
        self.cloud.credentials_good = False


def bearer(token):
    """A policy for the clients that are built on azure-core: its own insists on TLS."""
    from azure.core.pipeline.policies import SansIOHTTPPolicy

    class Bearer(SansIOHTTPPolicy):
        def on_request(self, request):
            request.http_request.headers["Authorization"] = f"Bearer {token}"

    return Bearer()


class Boto3(Client):
    def client(self):
        import boto3
        from botocore.config import Config

        return boto3.client(
            "ec2", region_name="eu-central-1", endpoint_url=self.rig.endpoint(), aws_access_key_id=aws.KEY,
            aws_secret_access_key=aws.SECRET, aws_session_token=aws.SESSION, config=Config(retries={"total_max_attempts": 1}),
        )

    def error_code(self, function):
        from botocore.exceptions import ClientError

        with self.assertRaises(ClientError) as caught:
            function()
        return caught.exception.response["Error"]["Code"]


class ElasticIp(Boto3):
    make_cloud = aws.AwsEip

    def test_boto3(self):
        self.inside(self.drive)

    def drive(self):
        ec2 = self.client()
        address = ec2.describe_addresses(AllocationIds=[aws.ALLOCATION])["Addresses"][0]
        self.assertEqual((address["NetworkInterfaceId"], address["PrivateIpAddress"]), (aws.ENIS["b"], aws.ADDRESSES["b"]))
        words = {"AllocationId": aws.ALLOCATION, "NetworkInterfaceId": aws.ENIS["a"]}
        self.assertEqual(self.error_code(lambda: ec2.associate_address(**words, DryRun=True)), "DryRunOperation")
        self.assertEqual(self.error_code(lambda: ec2.associate_address(**words, AllowReassociation=False)), "Resource.AlreadyAssociated")
        association = ec2.associate_address(**words, AllowReassociation=True)["AssociationId"]
        self.assertEqual(self.cloud.owner(), "a")
        ec2.disassociate_address(AssociationId=association)
        self.assertIsNone(self.cloud.owner())
        self.assertNotIn("NetworkInterfaceId", ec2.describe_addresses(AllocationIds=[aws.ALLOCATION])["Addresses"][0])
        self.assertEqual(self.error_code(lambda: ec2.describe_addresses(AllocationIds=["eipalloc-f"])), "InvalidAllocationID.NotFound")
        self.wrong_credentials()
        self.assertEqual(self.error_code(ec2.describe_addresses), "AuthFailure")

    def test_boto3_takes_the_role_from_the_metadata_service(self):
        self.inside(self.role)

    def role(self):
        got = botocore.utils.InstanceMetadataFetcher(timeout=5, num_attempts=1).retrieve_iam_role_credentials()
        self.assertEqual((got["role_name"], got["access_key"], got["secret_key"], got["token"]), ("gateway", aws.KEY, aws.SECRET, aws.SESSION))


class SecondaryIp(Boto3):
    make_cloud = aws.AwsSecondaryIp

    def test_boto3(self):
        self.inside(self.drive)

    def drive(self):
        ec2 = self.client()
        wanted = [{"Name": "addresses.private-ip-address", "Values": [aws.VIP]}, {"Name": "subnet-id", "Values": [aws.SUBNET]}]
        cards = ec2.describe_network_interfaces(Filters=wanted)["NetworkInterfaces"]
        self.assertEqual([card["NetworkInterfaceId"] for card in cards], [aws.ENIS["b"]])
        self.assertIn(aws.VIP, [each["PrivateIpAddress"] for each in cards[0]["PrivateIpAddresses"]])
        words = {"NetworkInterfaceId": aws.ENIS["a"], "PrivateIpAddresses": [aws.VIP]}
        self.assertEqual(self.error_code(lambda: ec2.assign_private_ip_addresses(**words, AllowReassignment=False)), "InvalidParameterValue")
        ec2.assign_private_ip_addresses(**words, AllowReassignment=True)
        self.assertEqual(self.cloud.owner(), "a")
        ec2.unassign_private_ip_addresses(**words)
        self.assertEqual(ec2.describe_network_interfaces(Filters=wanted)["NetworkInterfaces"], [])


class Routes(Boto3):
    make_cloud = aws.AwsRoute

    def test_boto3(self):
        self.inside(self.drive)

    def drive(self):
        ec2 = self.client()
        for table in aws.TABLES:
            routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
            hops = {route["DestinationCidrBlock"]: route.get("NetworkInterfaceId") for route in routes}
            self.assertEqual(hops[aws.DESTINATION], aws.ENIS["b"])
            words = {"RouteTableId": table, "DestinationCidrBlock": aws.DESTINATION, "NetworkInterfaceId": aws.ENIS["a"]}
            self.assertEqual(self.error_code(lambda: ec2.create_route(**words)), "RouteAlreadyExists")
            ec2.replace_route(**words)
        self.assertEqual(self.cloud.owner(), "a")
        self.cloud.give(None)
        self.assertEqual(self.error_code(lambda: ec2.replace_route(**words)), "InvalidParameterValue")
        self.assertTrue(ec2.create_route(**words)["Return"])


class HetznerClient(Client):
    make_cloud = Hetzner

    def test_hcloud(self):
        self.inside(self.drive)

    def drive(self):
        from hcloud import APIException, Client as HCloud

        client = HCloud(token=self.cloud.token, api_endpoint=self.rig.endpoint(), poll_interval=0.1, poll_max_retries=50)
        address = client.floating_ips.get_by_id(4711)
        self.assertEqual(address.server.id, SERVERS["b"])
        action = client.floating_ips.assign(address, server(SERVERS["a"]))
        self.assertEqual(action.status, "running")
        action.wait_until_finished()
        self.assertEqual((action.status, self.cloud.owner()), ("success", "a"))
        client.floating_ips.unassign(address).wait_until_finished()
        self.assertIsNone(client.floating_ips.get_by_id(4711).server)
        self.code(APIException, "not_found", lambda: client.floating_ips.get_by_id(1))
        self.wrong_credentials()
        self.code(APIException, "unauthorized", lambda: client.floating_ips.get_by_id(4711))

    def code(self, kind, code, function):
        with self.assertRaises(kind) as caught:
            function()
        self.assertEqual(caught.exception.code, code)


def server(number):
    from hcloud.servers.domain import Server

    return Server(id=number)


class DigitalOceanClient(Client):
    make_cloud = DigitalOcean

    def test_pydo(self):
        self.inside(self.drive)

    def drive(self):
        from azure.core.exceptions import HttpResponseError
        from pydo import Client as Pydo

        # Until it is ended: some calls take long on a busy machine.
        self.cloud.operation_seconds = 60
        client = Pydo(token=self.cloud.token, endpoint=self.rig.endpoint().removesuffix("/v2"), authentication_policy=bearer(self.cloud.token))
        self.assertEqual(client.reserved_ips.get(ADDRESS)["reserved_ip"]["droplet"]["id"], DROPLETS["b"])
        action = client.reserved_ips_actions.post(ADDRESS, {"type": "assign", "droplet_id": DROPLETS["a"]})["action"]
        self.assertEqual(action["status"], "in-progress")
        with self.assertRaises(HttpResponseError) as caught:
            client.reserved_ips_actions.post(ADDRESS, {"type": "unassign"})
        self.assertEqual(caught.exception.status_code, 422)
        self.cloud.end_operations()
        while action["status"] == "in-progress":
            action = client.reserved_ips_actions.get(ADDRESS, action["id"])["action"]
        self.assertEqual((action["status"], self.cloud.owner()), ("completed", "a"))
        self.assertEqual(client.reserved_ips.get("203.0.113.99")["id"], "not_found")
        self.wrong_credentials()
        with self.assertRaises(HttpResponseError) as caught:
            client.reserved_ips.get(ADDRESS)
        self.assertEqual(caught.exception.status_code, 401)


class ScalewayClient(Client):
    make_cloud = scaleway.Scaleway

    def test_scaleway(self):
        self.inside(self.drive)

    def drive(self):
        from scaleway import Client as Sdk, ScalewayException
        from scaleway.instance.v1 import InstanceV1API

        words = {"access_key": "SCWXXXXXXXXXXXXXXXXX", "secret_key": self.cloud.key, "default_zone": scaleway.ZONE, "default_project_id": scaleway.PROJECT}
        api = InstanceV1API(Sdk(**words, api_url=self.rig.endpoint()))
        ip = api.get_ip(ip=scaleway.ID).ip
        self.assertEqual((ip.server.id, ip.address, ip.state), (scaleway.SERVERS["b"], scaleway.ADDRESS, "attached"))
        self.cloud.operation_seconds = 60
        ip = api.update_ip(ip=scaleway.ADDRESS, server=scaleway.SERVERS["a"]).ip
        self.assertEqual((ip.server.id, ip.state), (scaleway.SERVERS["a"], "pending"))
        self.refused(ScalewayException, 409, lambda: api.update_ip(ip=scaleway.ID, server=scaleway.SERVERS["b"]))
        self.cloud.end_operations()
        while ip.state == "pending":
            ip = api.get_ip(ip=scaleway.ID).ip
        self.assertEqual((ip.server.id, ip.state, self.cloud.owner()), (scaleway.SERVERS["a"], "attached", "a"))
        self.refused(ScalewayException, 400, lambda: api.update_ip(ip=scaleway.ID, server="11111111-0000-4000-8000-000000000000"))
        self.refused(ScalewayException, 404, lambda: api.get_ip(ip="203.0.113.99"))
        self.wrong_credentials()
        self.refused(ScalewayException, 401, lambda: api.get_ip(ip=scaleway.ID))

    def refused(self, kind, status, function):
        with self.assertRaises(kind) as caught:
            function()
        self.assertEqual(caught.exception.status_code, status)


class OvhClient(Client):
    make_cloud = ovh.Ovh

    def test_ovh(self):
        # Longer than some calls take on a busy machine.
        self.cloud.operation_seconds = 1.5
        self.inside(self.drive)

    def client(self, secret=ovh.SECRET):
        import ovh as sdk

        # It takes the name of an endpoint that it knows.
        sdk.client.ENDPOINTS["fake"] = self.rig.endpoint()
        return sdk.Client(endpoint="fake", application_key=ovh.KEY, application_secret=secret, consumer_key=ovh.CONSUMER, timeout=10)

    def drive(self):
        from ovh import exceptions

        client, found = self.client(), f"/ip/{ovh.ADDRESS}"
        self.assertEqual(client.get(found)["routedTo"]["serviceName"], ovh.SERVICES["b"])
        task = client.post(f"{found}/move", to=ovh.SERVICES["a"])
        # It begins to run at any moment.
        waiting, running = (client.get(f"{found}/task", function="genericMoveFloatingIp", status=status) for status in ("todo", "doing"))
        self.assertEqual(set(waiting + running), {task["taskId"]})
        with self.assertRaises(exceptions.ResourceConflictError):
            client.post(f"{found}/park")
        while task["status"] != "done":
            task = client.get(f"{found}/task/{task['taskId']}")
        self.assertEqual((task["destination"]["serviceName"], self.cloud.owner()), (ovh.SERVICES["a"], "a"))
        self.assertEqual(client.get(f"{found}/task", status="todo"), [])
        with self.assertRaises(exceptions.BadParametersError):
            client.post(f"{found}/move", to="nobodys")
        with self.assertRaises(exceptions.ResourceNotFoundError):
            client.get("/ip/203.0.113.99")
        with self.assertRaisesRegex(exceptions.BadParametersError, "INVALID_SIGNATURE"):
            self.client("wrong").get(found)
        self.wrong_credentials()
        with self.assertRaises(exceptions.InvalidCredential):
            client.get(found)


class OpenStackClient(Client):
    make_cloud = openstack.OpenStack

    def test_openstacksdk(self):
        self.inside(self.drive)

    def drive(self):
        import openstack as sdk

        config = self.cloud.config()
        words = {
            "auth_url": config["auth_url"], "application_credential_id": config["application_credential_id"],
            "application_credential_secret": config["application_credential_secret"],
        }
        network = sdk.connect(auth_type="v3applicationcredential", region_name="RegionOne", load_yaml_config=False, **words).network
        self.assertEqual(network.get_ip(openstack.FLOATING_IP).port_id, openstack.PORTS["b"])
        moved = network.update_ip(openstack.FLOATING_IP, port_id=openstack.PORTS["a"])
        self.assertEqual((moved.port_id, self.cloud.owner()), (openstack.PORTS["a"], "a"))
        network.update_ip(openstack.FLOATING_IP, port_id=None)
        self.assertIsNone(network.get_ip(openstack.FLOATING_IP).port_id)
        with self.assertRaises(sdk.exceptions.NotFoundException):
            network.get_ip("f10a7104-0000-4000-8000-000000000000")
        words["application_credential_secret"] = "wrong"
        wrong = sdk.connect(auth_type="v3applicationcredential", region_name="RegionOne", load_yaml_config=False, **words)
        with self.assertRaisesRegex(Exception, "requires authentication"):
            wrong.network.get_ip(openstack.FLOATING_IP)


class GoogleClient(Client):
    def client(self):
        import google_auth_httplib2
        import httplib2
        from google.oauth2.credentials import Credentials
        from googleapiclient.discovery import build

        http = google_auth_httplib2.AuthorizedHttp(Credentials(gcp.TOKEN), http=httplib2.Http())
        return build("compute", "v1", http=http, static_discovery=True, client_options={"api_endpoint": self.rig.endpoint() + "/"})

    def wait(self, request, get):
        operation = request.execute()
        self.assertEqual(operation["status"], "RUNNING")
        while operation["status"] != "DONE":
            operation = get(operation["name"]).execute()
        self.assertNotIn("error", operation)

    def reason(self, request):
        from googleapiclient.errors import HttpError

        with self.assertRaises(HttpError) as caught:
            request.execute()
        return caught.exception.error_details[0]["reason"]


class GoogleRoutes(GoogleClient):
    make_cloud = gcp.GcpRoute

    def test_google_api_python_client(self):
        self.inside(self.drive)

    def drive(self):
        compute = self.client()
        project = {"project": gcp.PROJECT}

        def operation(name):
            return compute.globalOperations().get(operation=name, **project)

        listed = compute.routes().list(filter=f'destRange="{gcp.DESTINATION}"', **project).execute()["items"]
        self.assertEqual(sorted(route["name"] for route in listed), ["vpn-edge-gw-b", "vpn-other"])
        body = {
            "name": "vpn-edge-gw-a", "destRange": gcp.DESTINATION, "network": listed[0]["network"], "priority": 1000,
            "nextHopInstance": gcp.of_zone("instances", "gw-a"),
        }
        self.wait(compute.routes().insert(body=body, **project), operation)
        self.assertEqual(self.reason(compute.routes().insert(body=body, **project)), "alreadyExists")
        self.wait(compute.routes().delete(route="vpn-edge-gw-b", **project), operation)
        self.assertEqual(self.cloud.owner(), "a")
        self.assertEqual(self.reason(compute.routes().delete(route="vpn-edge-gw-b", **project)), "notFound")
        self.cloud.page_size = 1
        names, request = [], compute.routes().list(**project)
        while request:
            page = request.execute()
            names += [route["name"] for route in page.get("items", [])]
            request = compute.routes().list_next(request, page)
        self.assertEqual(sorted(names), ["default-route", "vpn-edge-gw-a", "vpn-other"])


class GoogleForwardingRule(GoogleClient):
    make_cloud = gcp.GcpForwardingRule

    def test_google_api_python_client(self):
        self.inside(self.drive)

    def drive(self):
        compute = self.client()
        where = {"project": gcp.PROJECT, "region": gcp.REGION}
        rule = compute.forwardingRules().get(forwardingRule="vpn", **where)
        self.assertEqual(rule.execute()["target"], gcp.of_zone("targetInstances", "gw-b"))
        body = {"target": gcp.of_zone("targetInstances", "gw-a")}
        set_target = compute.forwardingRules().setTarget(forwardingRule="vpn", body=body, **where)
        self.wait(set_target, lambda name: compute.regionOperations().get(operation=name, **where))
        self.assertEqual((rule.execute()["target"], self.cloud.owner()), (body["target"], "a"))
        self.assertEqual(self.reason(compute.forwardingRules().get(forwardingRule="none", **where)), "notFound")
        self.wrong_credentials()
        with self.assertRaisesRegex(Exception, "refresh|authError"):
            rule.execute()


class AzureClient(Client):
    make_cloud = azure.AzureRoute

    def test_azure_mgmt_network(self):
        self.inside(self.drive)

    def drive(self):
        from azure.core.exceptions import ClientAuthenticationError, ResourceNotFoundError
        from azure.mgmt.network import NetworkManagementClient

        class Credential:
            def get_token(self, *_, **__):
                raise AssertionError("the policy above gives it")

        client = NetworkManagementClient(
            Credential(), azure.SUBSCRIPTION, base_url=self.rig.endpoint(), authentication_policy=bearer(azure.TOKEN), retry_total=0, polling_interval=0.1
        )
        words = (azure.GROUP, azure.TABLES[0], "vpn")
        self.assertEqual(client.routes.get(*words).next_hop_ip_address, azure.ADDRESSES["b"])
        for table in azure.TABLES:
            route = {"properties": {"addressPrefix": "10.8.0.0/24", "nextHopType": "VirtualAppliance", "nextHopIpAddress": azure.ADDRESSES["a"]}}
            poller = client.routes.begin_create_or_update(azure.GROUP, table, "vpn", route, polling_interval=0.1)
            self.assertEqual(poller.status(), "InProgress")
            self.assertEqual(poller.result().provisioning_state, "Succeeded")
        self.assertEqual((client.routes.get(*words).next_hop_ip_address, self.cloud.owner()), (azure.ADDRESSES["a"], "a"))
        with self.assertRaises(ResourceNotFoundError):
            client.routes.get(azure.GROUP, "no-such-table", "vpn")
        self.wrong_credentials()
        with self.assertRaises(ClientAuthenticationError):
            client.routes.get(*words)


