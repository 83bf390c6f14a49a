"""What is peculiar to one hook."""

import time

from cases import AGAIN, DONE, GIVE_UP, NOT_MINE, UNKNOWN, Case
from fake import azure, gcp, openstack, ovh, scaleway
from fake.aws import ENIS, AwsEip, AwsRoute
from fake.cloud import Answer
from fake.digitalocean import DigitalOcean
from fake.hetzner import Hetzner


class HetznerOwn(Case):
    make_cloud = Hetzner

    def test_direct_assignment_is_refused(self):
        """Then it is taken off the other first."""
        self.cloud.give("b")
        original = self.cloud.act

        def act(command, request):
            if command == "assign" and self.cloud.state["server"]:
                return Answer(422, {"error": {"code": "floating_ip_assigned", "message": "already assigned"}})
            return original(command, request)

        self.cloud.act = act
        self.cloud.operation_seconds = 0.2
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_server_given(self):
        self.cloud.metadata_works = False
        self.expect(self.assert_(config=self.rig.config("a", server="101")), DONE)


class DigitalOceanOwn(Case):
    make_cloud = DigitalOcean

    def test_another_422_is_permanent(self):
        self.expect(self.assert_(config=self.rig.config("a", droplet="7")), GIVE_UP, "Droplet could not be found")


class ScalewayOwn(Case):
    make_cloud = scaleway.Scaleway

    def refuse_what_is_attached(self, reason):
        original = self.cloud.patch

        def patch(body):
            return self.cloud.refusal(reason) if body["server"] and self.cloud.state["server"] else original(body)

        self.cloud.patch = patch

    def test_direct_attachment_is_refused(self):
        """Then it is taken off the other first."""
        self.cloud.give("b")
        self.refuse_what_is_attached("is attached already")
        self.cloud.operation_seconds = 0.2
        self.expect(self.assert_(), DONE)
        self.assertEqual(self.cloud.count("change"), 3)
        self.held_by("a")

    def test_deposed_between_the_two_steps(self):
        """It is not put on: the other one does that."""
        self.cloud.give("b")
        self.refuse_what_is_attached("is attached already")
        refuse = self.cloud.patch

        def patch(body):
            if body["server"] is None:
                self.rig.master("b", 8)
            return refuse(body)

        self.cloud.patch = patch
        self.expect(self.assert_(), AGAIN, "of b")
        self.assertEqual((self.cloud.owner(), self.cloud.count("change")), (None, 2))

    def test_another_refusal_is_permanent(self):
        """And takes it from nobody."""
        self.cloud.give("b")
        self.refuse_what_is_attached("too many addresses")
        self.expect(self.assert_(), GIVE_UP, "invalid_request_error (Validation Error: too many addresses)")
        self.assertEqual((self.cloud.owner(), self.cloud.count("change")), ("b", 1))

    def test_on_its_way_is_not_here(self):
        """And is not asked for again."""
        self.cloud.operation_seconds = 60
        self.expect(self.assert_(deadline=5), AGAIN)
        self.expect(self.verify(), NOT_MINE, "pending")
        self.cloud.end_operations()
        self.expect(self.assert_(), DONE)
        self.assertEqual(self.cloud.count("change"), 1)

    def test_on_its_way_to_the_other(self):
        self.cloud.operation_seconds = 60
        self.expect(self.assert_("a", deadline=5), AGAIN)
        self.rig.master("b", 8)
        self.expect(self.assert_("b", term=8), AGAIN, "transient_state")
        self.cloud.end_operations()
        self.cloud.operation_seconds = 0
        self.expect(self.assert_("b", term=8), DONE)
        self.held_by("b")

    def test_by_its_address(self):
        self.expect(self.assert_(config=self.rig.config("a", flexible_ip=scaleway.ADDRESS)), DONE)

    def test_instance_and_zone_given(self):
        self.cloud.metadata_works = False
        config = self.rig.config("a", server=scaleway.SERVERS["a"], zone=scaleway.ZONE)
        self.expect(self.assert_(config=config), DONE)
        self.rig.forget("a")
        self.expect(self.verify(config=self.rig.config("a", server=scaleway.SERVERS["a"])), UNKNOWN)

    def test_metadata_without_a_zone(self):
        """The old name of it."""
        original = self.cloud.metadata

        def metadata(request, zone_id=scaleway.ZONE):
            answer = original(request)
            del answer.body["zone"]
            answer.body["location"]["zone_id"] = zone_id
            return answer

        self.cloud.metadata = metadata
        self.expect(self.assert_(), DONE)
        self.rig.forget("a")
        self.cloud.metadata = lambda request: metadata(request, None)
        self.expect(self.verify(), UNKNOWN, "no id and zone")

    def test_locked_by_scaleway(self):
        """Not by another call: a person must look."""
        self.cloud.answer = lambda request: Answer(423, {"type": "resource_locked", "message": "resource is locked"})
        self.expect(self.verify(), GIVE_UP, "resource_locked")


class OvhOwn(Case):
    make_cloud = ovh.Ovh

    def test_the_clock_is_asked_for_once(self):
        for _ in range(3):
            self.expect(self.verify(), NOT_MINE)
        self.assertEqual(self.cloud.times_asked, 1)

    def test_the_clock_has_changed(self):
        """What is remembered of it is forgotten then."""
        self.expect(self.assert_(), DONE)
        self.cloud.clock_ahead = -5000
        self.expect(self.verify(), AGAIN, "QUERY_TIME_OUT")
        self.expect(self.verify(), DONE)
        self.assertEqual(self.cloud.times_asked, 2)

    def test_a_wrong_secret(self):
        for key in ("application_secret", "consumer_key"):
            self.expect(self.assert_(config=self.rig.config("a", **{key: "wrong"})), GIVE_UP, "INVALID_SIGNATURE")
        self.expect(self.assert_(config=self.rig.config("a", application_key="wrong")), GIVE_UP, "INVALID_CREDENTIAL")
        self.no_change()

    def test_services(self):
        self.expect(self.verify(config=self.rig.config("a", services="b=ns2.ip-192-0-2.eu")), GIVE_UP, "none for the node a")
        self.expect(self.verify(config=self.rig.config("a", services="ns2.ip-192-0-2.eu")), GIVE_UP, "is not NODE=SERVICE")
        self.expect(self.assert_(config=self.rig.config("a", services="a=nobodys")), GIVE_UP, "Client::BadRequest")

    def test_regions(self):
        for region, host in (("eu", "eu.api.ovh.com"), ("ca", "ca.api.ovh.com"), ("us", "api.us.ovhcloud.com")):
            self.expect(self.verify(config=self.rig.config("a", endpoint=None, region=region)), UNKNOWN, host)
        self.expect(self.verify(config=self.rig.config("a", region="mars")), GIVE_UP, "eu, ca or us")

    def test_not_an_address(self):
        for ip in ("203.0.113.64/../me", "1.2.3.4/30/2", "vpn.example.com"):
            self.expect(self.verify(config=self.rig.config("a", ip=ip)), GIVE_UP, "not an address")
        self.assertEqual(self.cloud.calls, [])

    def test_own_move_is_waited_for(self):
        """Begun before a kill, it is not begun again."""
        self.cloud.operation_seconds = 6
        self.expect(self.assert_(deadline=4), AGAIN)
        self.expect(self.assert_(), DONE)
        self.assertEqual(self.cloud.count("change"), 1)

    def test_move_to_the_other_is_waited_for(self):
        self.cloud.operation_seconds = 6
        self.expect(self.assert_("a", deadline=5), AGAIN)
        self.cloud.operation_seconds = 0
        self.rig.master("b", 8)
        self.expect(self.assert_("b", term=8), DONE)
        self.assertEqual(self.cloud.count("change"), 2)
        self.held_by("b")

    def test_a_long_move_is_asked_for_less_often(self):
        """And it ends by itself before it is killed."""
        self.cloud.operation_seconds = 60
        self.expect(self.assert_(deadline=9), AGAIN, "move additional IP")
        self.assertLess(self.cloud.count("read"), 15)


class OvhBlockOwn(Case):
    make_cloud = ovh.OvhBlock

    def test_moves_as_one(self):
        self.cloud.give("b")
        self.cloud.operation_seconds = 0.2
        self.expect(self.assert_(), DONE)
        self.held_by("a")
        self.expect(self.rig.run("a", "release"), DONE)
        self.assertIsNone(self.cloud.owner())


class OpenStackOwn(Case):
    make_cloud = openstack.OpenStack

    def test_one_log_in(self):
        for _ in range(3):
            self.expect(self.verify(), NOT_MINE)
        self.assertEqual(len(self.cloud.tokens), 1)

    def test_token_taken_back(self):
        self.expect(self.assert_(), DONE)
        self.cloud.tokens.clear()
        self.cloud.tokens.append("another")
        self.expect(self.verify(), AGAIN, "new credentials")
        self.expect(self.verify(), DONE)

    def test_expired_token(self):
        self.expect(self.assert_(), DONE)
        cache = next((self.rig.directory / "a" / "cache").glob("*.credentials"))
        cache.write_text(cache.read_text().replace(cache.read_text().split()[0], str(int(time.time()) - 1)))
        self.expect(self.verify(), DONE)
        self.assertEqual(len(self.cloud.tokens), 2)

    def test_region(self):
        for _ in range(2):
            self.expect(self.verify(config=self.rig.config("a", region="Mars")), GIVE_UP, "catalogue")
        self.expect(self.assert_(config=self.rig.config("a", region="RegionOne")), DONE)

    def test_endpoint_given(self):
        for endpoint in (self.rig.endpoint(), self.rig.endpoint() + "/v2.0/"):
            self.expect(self.assert_(config=self.rig.config("a", endpoint=endpoint)), DONE)


class AwsOwn(Case):
    make_cloud = AwsEip

    def test_credentials_are_fetched_once(self):
        seen = []
        original = self.cloud.metadata
        self.cloud.metadata = lambda request: seen.append(request.path) or original(request)
        for _ in range(3):
            self.expect(self.verify(), NOT_MINE)
        self.assertEqual(sum(path.endswith("/gateway") for path in seen), 1, seen)

    def test_no_role(self):
        original = self.cloud.metadata
        self.cloud.metadata = lambda request: Answer(404, "") if "/iam/" in request.path else original(request)
        self.expect(self.assert_(), GIVE_UP, "profile")

    def test_at_another_address_of_the_card(self):
        config = self.rig.config("a", private_ip="10.0.1.77")
        self.cloud.give("a")
        self.expect(self.verify(config=config), NOT_MINE, "10.0.1.4")
        self.expect(self.assert_(config=config), DONE)
        self.expect(self.assert_(config=config), DONE, "already")
        self.assertEqual(self.cloud.state, {**self.cloud.state, "eip": ENIS["a"], "private": "10.0.1.77"})

    def test_a_card_that_was_replaced(self):
        """A card that is remembered and gone is a permanent error once; then the new one is found."""
        self.expect(self.assert_(), DONE)
        cache = next((self.rig.directory / "a" / "cache").glob("*.identity"))
        cache.write_text(cache.read_text().replace(ENIS["a"], "eni-gone"))
        self.expect(self.assert_(), GIVE_UP)
        self.expect(self.assert_(), DONE)

    def test_interface(self):
        self.expect(self.verify(config=self.rig.config("a", interface="none0")), GIVE_UP, "none0")
        # The loopback has an address that the cloud does not know.
        self.expect(self.verify(config=self.rig.config("a", interface="lo")), GIVE_UP, "00:00:00:00:00:00")

    def test_another_interface(self):
        """What is remembered is of the one that was configured then."""
        self.expect(self.assert_(), DONE)
        self.expect(self.verify(config=self.rig.config("a", interface="lo")), GIVE_UP, "00:00:00:00:00:00")
        self.expect(self.verify(), DONE)

    def test_credentials_that_are_not_understood_are_not_shown(self):
        original = self.cloud.metadata

        def metadata(request):
            answer = original(request)
            if request.path.endswith("/gateway"):
                answer.body["Expiration"] = "tomorrow"
            return answer

        self.cloud.metadata = metadata
        result = self.verify()
        self.expect(result, UNKNOWN, "secret")
        for secret in self.cloud.secrets():
            self.assertNotIn(secret[:10], result.said)

    def test_dry_run_without_permission(self):
        self.cloud.fault("denied", 1, only="change")
        self.expect(self.assert_(environment={"WGHA_DRY_RUN": "1"}), GIVE_UP, "UnauthorizedOperation")

    def one_error(self, code):
        """The next call is refused with it, and 400."""
        self.cloud.missing = code
        self.cloud.fault("missing", 1)

    def test_clock_is_wrong(self):
        self.one_error("RequestExpired")
        self.expect(self.assert_(), AGAIN, "RequestExpired")
        self.expect(self.assert_(), DONE)

    def test_expired_session(self):
        """New credentials if they were remembered; if they were new, a person must look."""
        self.one_error("ExpiredToken")
        self.expect(self.assert_(), GIVE_UP, "ExpiredToken")
        self.expect(self.assert_(), DONE)
        self.one_error("ExpiredToken")
        self.expect(self.assert_(), AGAIN, "new credentials")
        self.expect(self.assert_(), DONE)


class AwsRouteOwn(Case):
    make_cloud = AwsRoute

    def test_one_table_of_two(self):
        """Killed between two tables: only the other is changed."""
        self.cloud.give("b")
        table = next(iter(self.cloud.state["routes"]))
        self.cloud.state["routes"][table] = ENIS["a"]
        self.expect(self.verify(), NOT_MINE, ENIS["b"])
        self.expect(self.assert_(), DONE)
        self.assertEqual(self.cloud.count("change"), 1)
        self.held_by("a")


class GcpRouteOwn(Case):
    make_cloud = gcp.GcpRoute

    def both(self, first, second):
        self.cloud.give(None)
        for node in (first, second):
            hop = gcp.of_zone("instances", f"gw-{node}")
            self.cloud.add(self.cloud.state, {"name": f"vpn-edge-gw-{node}", "destRange": gcp.DESTINATION, "nextHopInstance": hop})

    def test_both_routes_are_nobodys(self):
        self.both("a", "b")
        for node in "ab":
            self.expect(self.verify(node), NOT_MINE, "and others")

    def test_own_is_the_newer(self):
        """As after a kill before the other's was deleted."""
        self.both("b", "a")
        self.expect(self.assert_(), DONE)
        self.assertEqual(self.cloud.count("change"), 1)
        self.held_by("a")

    def test_own_is_the_older(self):
        """It is made again, so that of two masters the later one stays."""
        self.both("a", "b")
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_the_hour_that_comes_twice(self):
        """The newest is the newest, though it was made at an earlier time of day, in Pacific time."""
        self.both("b", "a")
        for node, when in (("b", "2026-11-01T01:59:00.000-07:00"), ("a", "2026-11-01T01:05:00.000-08:00")):
            self.cloud.state["routes"][f"vpn-edge-gw-{node}"]["creationTimestamp"] = when
        self.expect(self.assert_(), DONE)
        self.assertEqual(self.cloud.count("change"), 1)
        self.held_by("a")

    def test_only_its_own_are_touched(self):
        self.cloud.give("b")
        self.expect(self.assert_(), DONE)
        self.assertEqual(sorted(self.cloud.state["routes"]), ["default-route", "vpn-edge-gw-a", "vpn-other"])

    def test_pages(self):
        self.cloud.page_size = 1
        self.cloud.give("b")
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_a_hop_that_is_gone(self):
        """A machine of the same name in another zone, before."""
        self.cloud.give("a")
        route = self.cloud.state["routes"]["vpn-edge-gw-a"]
        route["nextHopInstance"] = route["nextHopInstance"].replace(gcp.ZONE, "europe-west1-b")
        self.expect(self.verify(), NOT_MINE)
        self.expect(self.assert_(), DONE)
        self.held_by("a")


class AzureRouteOwn(Case):
    make_cloud = azure.AzureRoute

    def test_operations_may_not_be_read(self):
        """Then the route's own state tells."""
        self.cloud.operation_seconds = 0.4
        self.cloud.operation = lambda number: self.cloud.trouble("denied")
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_the_token_goes_to_nobody_else(self):
        original = self.cloud.put

        def put(table, request):
            answer = original(table, request)
            answer.headers["Azure-AsyncOperation"] = "http://127.0.0.1:8000@169.254.169.254/steal"
            return answer

        self.cloud.put = put
        stolen = []
        metadata = self.cloud.metadata
        self.cloud.metadata = lambda request: stolen.append(request.headers.get("Authorization")) or metadata(request)
        self.expect(self.assert_(), DONE)
        self.assertEqual([token for token in stolen if token], [])

    def test_another_destination_under_the_name(self):
        self.cloud.give("a")
        for route in self.cloud.state["routes"].values():
            route["addressPrefix"] = "10.9.0.0/24"
        self.expect(self.verify(), NOT_MINE, "10.9.0.0/24")
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_metadata_service_says_404_for_a_moment(self):
        original = self.cloud.metadata
        self.cloud.metadata = lambda request: Answer(404, "")
        self.expect(self.assert_(), AGAIN)
        self.cloud.metadata = original
        self.expect(self.assert_(), DONE)
