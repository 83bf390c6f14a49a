"""The hooks whose calls `wgha sign` signs: the cases of cases.py, and what is peculiar to one of them. The fake clouds verify
every signature with the providers' own code."""

import os
import shutil
from pathlib import Path

import cases
from cases import AGAIN, DONE, GIVE_UP, NOT_MINE, UNKNOWN
from fake import alibaba, oci, tencent
from fake.alibaba import AlibabaEip, AlibabaRoute
from fake.oci import Oci
from fake.tencent import TencentEip, TencentRoute
from rig import API

WGHA = Path(os.environ.get("WGHA") or Path(__file__).resolve().parents[2] / "target/debug/wgha").resolve()


class Signed:
    """A rig in whose PATH is wgha; and Oracle's key."""

    def setUp(self):
        super().setUp()
        if not WGHA.is_file():
            raise AssertionError(f"there is no {WGHA}: cargo build, or name it in WGHA")
        self.rig.path = f"{WGHA.parent}:{os.environ['PATH']}"
        if isinstance(self.cloud, Oci):
            self.cloud.key_file = self.rig.directory / "oci.pem"
            shutil.copy(oci.KEY_FILE, self.cloud.key_file)
            self.cloud.key_file.chmod(0o600)


class Peculiar(Signed, cases.Case):
    def test_without_wgha(self):
        self.rig.path = os.environ["PATH"]
        self.expect(self.assert_(), GIVE_UP, "wgha is not in the PATH")
        self.assertEqual(self.cloud.calls, [])

    make_cloud = Oci


class OciOnly(Signed, cases.Case):
    make_cloud = Oci

    def test_a_primary_address(self):
        self.cloud.primary = True
        self.expect(self.assert_(), GIVE_UP, "primary")
        self.no_change()

    def test_another_key(self):
        """A signature by a key that Oracle does not know."""
        other = self.rig.directory / "other.pem"
        os.system(f"umask 077; openssl genrsa -out {other} 2048 2>/dev/null")
        self.expect(self.assert_(config=self.rig.config("a", key_file=other)), GIVE_UP, "NotAuthenticated")
        self.no_change()

    def test_a_key_that_is_none(self):
        broken = self.rig.directory / "broken.pem"
        broken.write_text("-----BEGIN PRIVATE KEY-----\n")
        broken.chmod(0o600)
        self.expect(self.assert_(config=self.rig.config("a", key_file=broken)), GIVE_UP, "cannot sign")
        self.assertEqual(self.cloud.calls, [])

    def test_a_key_that_others_can_read(self):
        self.cloud.key_file.chmod(0o644)
        self.expect(self.assert_(), GIVE_UP, "secret")
        self.assertEqual(self.cloud.calls, [])

    def test_the_official_client_agrees(self):
        import oci as client

        def use(key_file):
            config = {
                "tenancy": oci.TENANCY, "user": oci.USER, "fingerprint": oci.FINGERPRINT, "key_file": str(key_file), "region": "eu-frankfurt-1",
            }  # fmt: skip
            network = client.core.VirtualNetworkClient(config, service_endpoint=f"http://{API[0]}:{API[1]}", retry_strategy=client.retry.NoneRetryStrategy())
            network.base_client.endpoint = f"http://{API[0]}:{API[1]}{self.cloud.base}"
            details = client.core.models.UpdatePrivateIpDetails(vnic_id=oci.VNICS["b"])
            network.update_private_ip(oci.PRIVATE_IP, details)
            return network.get_private_ip(oci.PRIVATE_IP).data.vnic_id

        self.assertEqual(self.rig.nodes["a"].call(lambda: use(self.cloud.key_file)), oci.VNICS["b"])
        self.held_by("b")


class AlibabaOnly(Signed, cases.Case):
    make_cloud = AlibabaEip

    def test_keys_of_the_config(self):
        """Without a session token, which this fake wants: refused, and the secret is in no message."""
        config = self.rig.config("a", access_key_id="LTAI", access_key_secret="hidden")
        result = self.assert_(config=config)
        self.expect(result, GIVE_UP, "InvalidAccessKeyId")
        self.assertNotIn("hidden", result.said)

    def test_killed_between_the_two_steps(self):
        """Off the other, and not yet on this one."""
        self.cloud.give(None)
        self.expect(self.verify(), NOT_MINE, "nobody")
        self.expect(self.assert_(), DONE)

    def test_deposed_after_the_first_step(self):
        """It is not put on: the other one does that."""
        self.cloud.give("b")
        original = self.cloud.UnassociateEipAddress

        def unassociate(query):
            self.rig.master("b", 8)
            return original(query)

        self.cloud.UnassociateEipAddress = unassociate
        self.expect(self.assert_(), AGAIN, "of b")
        self.assertEqual((self.cloud.owner(), self.cloud.count("change")), (None, 1))

    def test_the_official_client_agrees(self):
        from alibabacloud_tea_openapi.models import Config
        from alibabacloud_vpc20160428 import models
        from alibabacloud_vpc20160428.client import Client

        def use(secret):
            client = Client(Config(
                access_key_id=alibaba.KEY_ID, access_key_secret=secret, security_token=alibaba.TOKEN, protocol="HTTP",
                region_id="eu-central-1", endpoint=f"{API[0]}:{API[1]}",
            ))  # fmt: skip
            words = {"region_id": "eu-central-1", "allocation_id": alibaba.ALLOCATION}
            client.associate_eip_address(models.AssociateEipAddressRequest(**words, instance_id="i-bbbb", instance_type="EcsInstance"))
            (eip,) = client.describe_eip_addresses(models.DescribeEipAddressesRequest(**words)).body.eip_addresses.eip_address
            return eip.status, eip.instance_id

        self.assertEqual(self.rig.nodes["a"].call(lambda: use(alibaba.SECRET)), ("InUse", "i-bbbb"))
        self.held_by("b")
        with self.assertRaises(Exception, msg="InvalidAccessKeyId"):
            self.rig.nodes["a"].call(lambda: use("wrong"))


class TencentOnly(Signed, cases.Case):
    make_cloud = TencentRoute

    def test_another_kind_of_hop(self):
        self.cloud.state.update(hop="10.0.1.4", kind="NAT")
        self.expect(self.verify(), NOT_MINE, "NAT")
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_errors_that_pass(self):
        for code, wanted in (("RequestLimitExceeded.UinLimitExceeded", AGAIN), ("InternalError.ModuleError", UNKNOWN), ("ServiceUnavailable", UNKNOWN)):
            self.cloud.missing = code
            self.cloud.fault("missing", 1)
            self.expect(self.verify(), wanted, code)
        self.expect(self.assert_(), DONE)

    def test_no_list_of_routes(self):
        self.cloud.DescribeRouteTables = lambda _: tencent.answer(TotalCount=1, RouteTableSet=[{"RouteTableId": tencent.TABLE}])
        self.expect(self.verify(), UNKNOWN)
        self.expect(self.assert_(), AGAIN)
        self.no_change()

    def test_disabled(self):
        self.cloud.give("a")
        self.cloud.state["enabled"] = False
        self.expect(self.verify(), NOT_MINE, "disabled")
        self.expect(self.assert_(), GIVE_UP, "disabled")
        self.no_change()


class TencentClient(Signed, cases.Case):
    make_cloud = TencentEip

    def test_the_official_client_agrees(self):
        from tencentcloud.common import credential
        from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
        from tencentcloud.common.profile.client_profile import ClientProfile
        from tencentcloud.common.profile.http_profile import HttpProfile
        from tencentcloud.vpc.v20170312 import models
        from tencentcloud.vpc.v20170312.vpc_client import VpcClient

        def use(secret):
            profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=f"{API[0]}:{API[1]}"))
            client = VpcClient(credential.Credential(tencent.KEY_ID, secret, tencent.TOKEN), "eu-frankfurt", profile)
            request = models.AssociateAddressRequest()
            request.AddressId, request.InstanceId = tencent.ADDRESS_ID, "ins-bbbb"
            task = models.DescribeTaskResultRequest()
            task.TaskId = int(client.AssociateAddress(request).TaskId)
            return client.DescribeTaskResult(task).Result

        self.assertEqual(self.rig.nodes["a"].call(lambda: use(tencent.SECRET)), "SUCCESS")
        self.held_by("b")
        with self.assertRaises(TencentCloudSDKException):
            self.rig.nodes["a"].call(lambda: use("wrong"))


def operation_fails(case):
    """The API has no word for it: what was asked for does not come."""
    case.cloud.operation_fails = 1
    case.cloud.operation_seconds = 0.3
    case.expect(case.assert_(deadline=5), AGAIN, "but")
    case.expect(case.assert_(), DONE)
    case.held_by("a")


def classes():
    made = {}
    peculiar = {
        AlibabaEip: {"test_operation_fails": operation_fails},
        Oci: {"releases": False},
        AlibabaRoute: {"releases": False, "test_operation_fails": operation_fails},
        TencentRoute: {"releases": False},
    }
    for cloud in (Oci, AlibabaEip, AlibabaRoute, TencentEip, TencentRoute):
        for group in cases.GROUPS:
            name = f"{cloud.__name__}{group.__name__}"
            own = {"make_cloud": cloud, "__module__": __name__, "__qualname__": name}
            own.update((key, value) for key, value in peculiar.get(cloud, {}).items() if hasattr(group, key))
            if not cloud.asynchronous:
                own.update(dict.fromkeys(cases.OF_OPERATIONS))
            made[name] = type(name, (Signed, group), own)
    return made


globals().update(classes())
