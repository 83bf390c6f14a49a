"""The hooks for DNS: the cases of cases.py, and what is peculiar to records. rfc2136-dns runs against a real bind9."""

import cases
import cloudflare
from cases import AGAIN, DONE, GIVE_UP, NOT_MINE, UNKNOWN
from fake.cloud import Answer
from fake.bind import ADDRESSES, NAME, SECRETS, WILD, Bind
from fake.cloudflare import ZONE, Cloudflare
from fake.route53 import Route53
from rig import API
from test_moto import PORT, Moto, documented_policy


class NoMetadata:
    """These hooks ask no metadata service."""

    def test_metadata_service_is_down(self):
        self.cloud.metadata_works = False
        self.expect(self.verify(), NOT_MINE)
        self.expect(self.assert_(), DONE)

    test_metadata_service_says_nothing = None


class Records:
    """What a name has that an address has not: any number of records, of two types, and a file for both nodes."""

    def both_at_once(self):
        self.rig.each_its_own()
        # The one that came first sees the other's, and waits for its own until its time is over.
        runs = [self.rig.start(node, "assert", deadline=6) for node in "ab"]
        return [run.result() for run in runs]

    def test_both_at_once_leave_one_record(self):
        for start in (None, "x", None):
            self.cloud.give(start)
            for result in self.both_at_once():
                self.assertIn(result.code, (DONE, AGAIN), result.said)
            self.assertEqual(len(self.cloud.records()), 1)
            self.held_by(self.cloud.owner())

    def test_no_address_for_this_node(self):
        config = self.rig.config("a", addresses="b=203.0.113.8")
        self.expect(self.assert_(config=config), GIVE_UP, "there is none for the node a")
        self.no_change()

    def test_an_address_that_is_none(self):
        for value in ("a=vpn.example.com", "a=", "a=1.2.3.4;id", "203.0.113.7", "a=1.2.3", "a=1.2.3.256", "a=::g", "a=1::2::3", "a=1:2:3", "a=12345::"):
            self.expect(self.assert_(config=self.rig.config("a", addresses=value)), GIVE_UP, "addresses")
        self.no_change()

    def test_node_is_not_said(self):
        self.expect(self.verify(environment={"WGHA_NODE": ""}), GIVE_UP, "WGHA_NODE")

    def test_ipv6_as_servers_write_it(self):
        """RFC 5952."""
        for given, written in (
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("2001:0db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("2001:db8::0", "2001:db8::"),
            ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
        ):
            self.expect(self.assert_(config=self.rig.config("a", addresses=f"a={given}")), DONE)
            self.assertEqual(self.cloud.records("AAAA"), [written])

    def test_ipv6_as_it_may_be_written(self):
        config = self.rig.config("a", addresses="a=2001:DB8:0:0::A b=2001:db8::b")
        self.expect(self.assert_(config=config), DONE, "AAAA")
        self.assertEqual(self.cloud.records("AAAA"), ["2001:db8::a"])
        self.assertEqual(self.cloud.records("A"), [])
        self.expect(self.verify(config=config), DONE)

    def test_name_as_it_may_be_written(self):
        name = self.cloud.config()["name"]
        config = self.rig.config("a", name=f"{name.upper()}.")
        self.expect(self.assert_(config=config), DONE)
        self.held_by("a")


class CloudflareOnly(cases.Case):
    make_cloud = Cloudflare

    def give_two(self):
        self.cloud.give("b")
        self.cloud.add(self.cloud.state, self.cloud.record("203.0.113.7"))

    def test_two_records_become_one(self):
        self.give_two()
        self.expect(self.verify(), NOT_MINE, "203.0.113.7", "203.0.113.8")
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_one_of_two_is_ours_already(self):
        """Whichever is the first: there are never two that are the same."""
        for first in (True, False):
            self.cloud.give("b")
            self.cloud.add(self.cloud.state, self.cloud.record("203.0.113.7"))
            one, other = sorted(self.cloud.state["records"].values(), key=lambda record: record["id"])
            one["content"], other["content"] = ("203.0.113.7", "203.0.113.8") if first else ("203.0.113.8", "203.0.113.7")
            self.expect(self.assert_(), DONE)
            self.held_by("a")

    def test_made_by_a_run_whose_end_was_not_heard(self):
        self.cloud.before_create = lambda: self.cloud.add(self.cloud.state, self.cloud.record("203.0.113.7"))
        self.expect(self.assert_(), AGAIN, "81058")
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_a_list_of_all_records(self):
        """As by something between here and there that drops what was asked for."""
        mail = self.cloud.record("198.51.100.25", name="mail.example.com")
        self.cloud.add(self.cloud.state, mail)
        original = self.cloud.listed
        self.cloud.listed = lambda query: original({})
        self.expect(self.verify(), NOT_MINE, "nobody")
        self.expect(self.assert_(), DONE)
        self.expect(self.verify(), DONE)
        self.expect(self.rig.run("a", "release"), DONE)
        self.assertEqual(list(self.cloud.state["records"].values()), [mail])

    def test_no_success_is_no_list(self):
        self.cloud.listed = lambda query: Answer(200, {"success": False, "errors": [], "messages": [], "result": []})
        self.expect(self.verify(), UNKNOWN)
        self.expect(self.assert_(), AGAIN)
        self.no_change()

    def test_the_other_makes_one_at_the_same_time(self):
        self.cloud.before_create = lambda: self.cloud.add(self.cloud.state, self.cloud.record("203.0.113.8"))
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_proxied_is_not_ours(self):
        self.cloud.add(self.cloud.state, self.cloud.record("203.0.113.7", proxied=True))
        self.expect(self.verify(), NOT_MINE, "proxied")
        self.expect(self.assert_(), DONE)
        self.expect(self.verify(), DONE)

    def test_other_names_and_types_stay(self):
        mail = self.cloud.record("198.51.100.25", name="mail.example.com")
        text = self.cloud.record("v=1", type="TXT")
        for record in (mail, text):
            self.cloud.add(self.cloud.state, record)
        self.expect(self.assert_(), DONE)
        self.expect(self.rig.run("a", "release"), DONE)
        self.assertEqual(list(self.cloud.state["records"].values()), [mail, text])

    def test_ttl(self):
        self.expect(self.assert_(config=self.rig.config("a", ttl="120")), DONE)
        (record,) = self.cloud.state["records"].values()
        self.assertEqual((record["ttl"], record["proxied"]), (120, False))
        self.expect(self.assert_(config=self.rig.config("a", ttl="1m")), GIVE_UP, "ttl")

    def test_the_official_client_agrees(self):
        server_side = self.rig.nodes["a"]
        url = f"http://{API[0]}:{API[1]}{self.cloud.base}"

        def use(token):
            client = cloudflare.Cloudflare(api_token=token, base_url=url, max_retries=0, _strict_response_validation=True)
            records = client.dns.records
            made = records.create(zone_id=ZONE, name=NAMES, type="A", content="203.0.113.8", ttl=60, proxied=False)
            found = list(records.list(zone_id=ZONE, name={"exact": NAMES}, type="A"))
            changed = records.edit(made.id, zone_id=ZONE, name=NAMES, type="A", content="203.0.113.7", ttl=60)
            gone = records.delete(made.id, zone_id=ZONE)
            return [each.id for each in found], changed.content, gone.id == made.id, list(records.list(zone_id=ZONE, name={"exact": NAMES}))

        found, content, gone, left = server_side.call(lambda: use(self.cloud.token))
        self.assertEqual((len(found), content, gone, left), (1, "203.0.113.7", True, []))
        with self.assertRaises(cloudflare.AuthenticationError):
            server_side.call(lambda: use("wrong"))


NAMES = "vpn.example.com"


class WithBind:
    """A rig with a server."""

    make_cloud = Bind

    def setUp(self):
        super().setUp()
        # Ends last, after what asks it.
        self._cleanups.insert(0, (self.cloud.close, (), {}))
        for node, space in self.rig.nodes.items():
            server = self.cloud.listen(space, node)
            self.addCleanup(server.server_close)
            self.addCleanup(server.shutdown)


class BindCases(NoMetadata):
    """What is otherwise with DNS than with HTTP."""

    def test_nobody_listens(self):
        config = self.rig.config("a", port="1")
        self.expect(self.verify(config=config), UNKNOWN)
        self.expect(self.assert_(config=config), AGAIN)

    def test_a_change_is_answered_in_part(self):
        """It was done, which the next run sees."""
        self.cloud.fault("cut", 1, only="change")
        self.expect(self.assert_(), AGAIN)
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    # An authoritative server never reads stale, and has no such answers.
    test_one_stale_read_is_no_loss = test_stale_reads_after_the_change = None
    test_too_many_calls = test_too_many_changes = test_locked = None

    def test_credentials_are_refused(self):
        """A key that the server does not know, and one with another secret."""
        unknown = self.cloud.key_file("unknown-key", SECRETS["wgha-key"])
        wrong = self.cloud.key_file("wgha-key", SECRETS["other-key"], "wrong")
        for key in (unknown, wrong):
            config = self.rig.config("a", key_file=key)
            self.expect(self.assert_(config=config), GIVE_UP, "is not accepted", "BAD")
            self.expect(self.verify(config=config), GIVE_UP)
        self.no_change()

    def test_no_permission(self):
        """A key that the update policy does not name; and a name that it does not."""
        config = self.rig.config("a", key_file=self.cloud.directory / "other-key.key")
        self.expect(self.assert_(config=config), GIVE_UP, "REFUSED")
        self.assertEqual(self.cloud.count("change"), 1)
        config = self.rig.config("a", name="fixed.example.test")
        self.expect(self.assert_(config=config), GIVE_UP, "REFUSED")
        self.assertEqual(self.cloud.dig("fixed.example.test"), ["192.0.2.53"])

    def test_deposed_between_two_steps(self):
        """The record has changed since it was looked at, and so has the master: nothing is tried again."""

        def race():
            self.cloud.give("x")
            self.rig.master("b", 8)

        self.cloud.before_update = race
        self.expect(self.assert_(), AGAIN, "of b")
        self.assertEqual((self.cloud.owner(), self.cloud.count("change")), ("x", 1))

    def test_no_secret_is_an_argument(self):
        self.cloud.fault("hang", 1, only="change")
        run = self.rig.start("a", "assert")
        self.wait_for("change")
        arguments = run.arguments()
        run.kill()
        self.assertTrue(any("nsupdate" in each for each in arguments), arguments)
        self.assertFalse([each for each in arguments if SECRETS["wgha-key"] in each])

    def test_a_secret_that_others_can_read(self):
        config = self.rig.config("a")
        key = self.cloud.directory / "wgha-key.key"
        key.chmod(0o644)
        self.expect(self.assert_(config=config), GIVE_UP, "secret")
        self.assertEqual(self.cloud.calls, [])
        # Without a secret in it, the config may be read by all.
        key.chmod(0o600)
        config.chmod(0o644)
        self.expect(self.assert_(config=config), DONE)


class BindOnly(WithBind, cases.Case):
    def test_down_then_back(self):
        self.cloud.give("b")
        self.cloud.end()
        self.expect(self.verify(deadline=4), UNKNOWN)
        self.expect(self.assert_(deadline=4), AGAIN)
        self.cloud.begin()
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_changed_since_it_was_looked_at(self):
        """The condition fails, it is looked at again, and taken from there."""
        for change in (lambda: self.cloud.give("x"), lambda: self.cloud.give(None), lambda: self.cloud.set("192.0.2.7", "192.0.2.8")):
            self.cloud.give("b")
            self.cloud.before_update = change
            self.expect(self.assert_(), DONE)
            self.held_by("a")

    def test_taken_by_the_other_before_it_is_released(self):
        self.cloud.give("a")
        self.cloud.before_update = lambda: self.cloud.give("b")
        self.rig.run("a", "release")
        self.assertEqual(self.cloud.owner(), "b")

    def test_several_records_become_one(self):
        self.cloud.set("192.0.2.1", "192.0.2.2", "192.0.2.3")
        self.expect(self.verify(), NOT_MINE)
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_a_wildcard_is_no_record(self):
        config = self.rig.config("a", name=WILD)
        self.expect(self.verify(config=config), NOT_MINE, "192.0.2.80")
        self.expect(self.assert_(config=config), DONE)
        self.assertEqual(self.cloud.dig(WILD), [ADDRESSES["a"]])
        self.expect(self.rig.run("a", "release", config=config), DONE)
        self.assertEqual(self.cloud.dig(WILD), ["192.0.2.80"])
        # The wildcard's own address.
        config = self.rig.config("a", name=WILD, addresses="a=192.0.2.80")
        self.expect(self.rig.run("a", "release", config=config), DONE, "wildcard")

    def test_a_key_file_without_a_key(self):
        """dig would ask without a signature, and believe what it is told."""
        self.cloud.give("a")
        key = self.cloud.directory / "broken.key"
        whole = (self.cloud.directory / "wgha-key.key").read_text()
        for text in ("", whole[:40], whole.replace(SECRETS["wgha-key"], "no base64!")):
            key.write_text(text)
            key.chmod(0o600)
            for verb in ("verify", "assert"):
                self.expect(self.rig.run("a", verb, config=self.rig.config("a", key_file=key)), GIVE_UP, "there is no key in")
        self.no_change()

    def test_one_transaction(self):
        """The name is never without an address: one update, one serial number more."""
        self.cloud.give("b")
        before = int(self.cloud.serial())
        self.expect(self.assert_(), DONE)
        self.assertEqual((int(self.cloud.serial()), self.cloud.count("change")), (before + 1, 1))

    def test_the_answer_to_the_update_is_lost(self):
        """nsupdate sends it again, whose condition then fails: it is ours all the same."""
        self.cloud.give("b")
        forward = self.cloud.forward

        def lost(query):
            self.cloud.forward = forward
            forward(query)

        self.cloud.before_update = lambda: setattr(self.cloud, "forward", lost)
        self.expect(self.assert_(deadline=20), DONE)
        self.held_by("a")

    def test_a_cname(self):
        self.expect(self.assert_(config=self.rig.config("a", name="alias.example.test")), GIVE_UP, "CNAME")
        self.no_change()

    def test_the_clock_is_wrong(self):
        self.cloud.clock_is_wrong = True
        self.expect(self.verify(), UNKNOWN, "clock")
        self.expect(self.assert_(), AGAIN, "clock")
        self.no_change()
        self.cloud.clock_is_wrong = False
        self.expect(self.assert_(), DONE)


class Route53Only(cases.Case):
    make_cloud = Route53

    def test_several_addresses_become_one(self):
        self.cloud.state["records"][("vpn.example.com.", "A")] = (60, ["203.0.113.7", "203.0.113.8"])
        self.expect(self.verify(), NOT_MINE, "203.0.113.7 203.0.113.8")
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_changed_before_it_is_released(self):
        self.cloud.give("a")
        answer = self.cloud.change

        def change(body):
            self.cloud.give("b")
            return answer(body)

        self.cloud.change = change
        self.expect(self.rig.run("a", "release"), AGAIN, "changed meanwhile")
        self.assertEqual(self.cloud.owner(), "b")


class Route53BeforeMoto(Moto):
    """Signatures are computed again there, and the documented policy is enforced."""

    def prepare(self):
        super().prepare()
        self.patch_moto()
        route53 = self.client("route53")
        self.zone = route53.create_hosted_zone(Name="example.com", CallerReference=self.user)["HostedZone"]["Id"].rpartition("/")[2]
        self.addCleanup(lambda: self.rig.nodes["a"].call(lambda: self.authentication(on=False)))

    def patch_moto(self):
        """moto 5.2 takes the query of a GET for its body too, and so refuses what AWS takes: boto3's own calls as well."""
        from moto.iam.access_control import IAMRequest

        original = IAMRequest._create_aws_request

        def without_body(request):
            made = original(request)
            if request._method == "GET":
                made.data = b""
            return made

        IAMRequest._create_aws_request = without_body
        self.addCleanup(setattr, IAMRequest, "_create_aws_request", original)

    def records(self):
        """What boto3 sees, whose signature must be good, too."""

        def ask():
            client = self.client("route53", self.key["AccessKeyId"], self.key["SecretAccessKey"])
            found = client.list_resource_record_sets(HostedZoneId=self.zone)["ResourceRecordSets"]
            return [(each["Name"], each["TTL"], [value["Value"] for value in each["ResourceRecords"]]) for each in found if each["Type"] == "A"]

        return self.rig.nodes["a"].call(ask)

    def test_record(self):
        self.allow(documented_policy("route53-dns"))
        for node in "aba":
            self.expect(self.record(node, "assert"), DONE, "here now")
            self.expect(self.record("a", "verify"), DONE if node == "a" else NOT_MINE)
        self.expect(self.record("a", "assert"), DONE, "already")
        self.assertEqual(self.records(), [("vpn.example.com.", 60, ["203.0.113.7"])])
        self.expect(self.record("b", "assert", "wrong/secret"), GIVE_UP, "Signature")
        self.expect(self.record("a", "release"), DONE, "released")
        self.assertEqual(self.records(), [])
        policy = documented_policy("route53-dns")
        policy["Statement"][0]["Action"].remove("route53:ChangeResourceRecordSets")
        self.allow(policy)
        self.expect(self.record("a", "verify"), NOT_MINE)
        self.expect(self.record("a", "assert"), GIVE_UP, "AccessDenied")

    def record(self, node, verb, secret=None):
        self.cloud.hook = "route53-dns"
        self.rig.master(node)
        config = self.rig.config(
            node, endpoint=f"http://127.0.0.1:{PORT}", zone=self.zone, name="vpn.example.com", addresses="a=203.0.113.7 b=203.0.113.8",
            access_key_id=self.key["AccessKeyId"], secret_access_key=secret or self.key["SecretAccessKey"],
        )  # fmt: skip
        return self.rig.run(node, verb, config=config)

    test_elastic_ip = test_route = test_secondary_ip = test_credentials_of_a_role = None


def classes(cloud, instead, *bases):
    """A class for each group of cases, with the tests of `instead` in the place of its own."""
    made = {}
    for group in (*cases.GROUPS, type("Records", (Records, cases.Case), {})):
        own = {name: test for base in reversed(instead.__mro__) for name, test in vars(base).items() if name.startswith("test_")}
        own = {name: test for name, test in own.items() if hasattr(group, name)}
        own.update(dict.fromkeys(cases.OF_OPERATIONS))
        name = f"{cloud.__name__}{group.__name__}"
        made[name] = type(name, (*bases, group), {**own, "make_cloud": cloud, "__module__": __name__, "__qualname__": name})
    return made


globals().update(classes(Cloudflare, NoMetadata))
globals().update(classes(Route53, object))
globals().update(classes(Bind, BindCases, WithBind))
