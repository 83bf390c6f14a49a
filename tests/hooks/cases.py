"""What every hook must do, whatever the cloud. test_claims.py makes a class of these for each of them."""

import random
import time
import unittest

from rig import Rig

DONE, NOT_MINE, UNKNOWN, AGAIN, GIVE_UP = 0, 3, 4, 75, 78
DEADLINE_S = 2
# For what takes no time on a machine that has nothing else to do.
PATIENCE_S = 30
# For clouds whose changes are operations that end later.
OF_OPERATIONS = ("test_operation_takes_its_time", "test_operation_fails", "test_killed_while_the_operation_runs")


class Case(unittest.TestCase):
    """A rig with a fresh cloud."""

    make_cloud = None  # the provider's class

    def setUp(self):
        self.cloud = self.make_cloud()
        self.rig = Rig(self.cloud)
        self.addCleanup(self.rig.close)

    def expect(self, result, code, *words):
        self.assertEqual(result.code, code, result.said)
        self.assertEqual(result.said.count("\n"), 0, f"not one line: {result.said!r}")
        self.assertTrue(result.said.startswith(f"{self.cloud.hook}: "), result.said)
        for word in words:
            self.assertIn(word, result.said)

    def assert_(self, node="a", **words):
        return self.rig.run(node, "assert", **words)

    def verify(self, node="a", **words):
        """A verify, which never changes anything."""
        before = self.cloud.count("change")
        result = self.rig.run(node, "verify", **words)
        self.assertEqual(self.cloud.count("change"), before, "verify has changed something")
        return result

    def held_by(self, node):
        """The cloud and both nodes agree on it."""
        self.assertEqual(self.cloud.owner(), node)
        for each in self.rig.nodes:
            self.expect(self.verify(each), DONE if each == node else NOT_MINE)

    def wait_for(self, kind):
        """Until the cloud has got a call of that kind, which it may not have answered."""
        until = time.monotonic() + PATIENCE_S
        while self.cloud.count(kind) == 0:
            self.assertLess(time.monotonic(), until, f"no {kind} was asked for")
            time.sleep(0.01)

    def no_change(self):
        self.assertEqual(self.cloud.count("change"), 0, self.cloud.calls)


class Assert(Case):
    """Where it may be when a node wants it."""

    def test_from_nobody(self):
        self.expect(self.verify(), NOT_MINE)
        self.expect(self.assert_(), DONE, "here now")
        self.held_by("a")

    def test_from_the_peer(self):
        self.cloud.give("b")
        self.expect(self.assert_(), DONE, "here now")
        self.held_by("a")

    def test_from_something_else(self):
        self.cloud.give("x")
        self.expect(self.verify(), NOT_MINE)
        self.expect(self.assert_(), DONE)
        self.assertEqual(self.cloud.owner(), "a")

    def test_already_mine(self):
        self.cloud.give("a")
        self.expect(self.assert_(), DONE, "already")
        self.no_change()

    def test_both_at_once(self):
        """Two that believe to be master: one ends up with it, and both can tell which."""
        self.rig.each_its_own()
        self.cloud.operation_seconds = 0.2
        runs = [self.rig.start(node, "assert", deadline=4) for node in "ab"]
        results = [run.result() for run in runs]
        for result in results:
            self.assertIn(result.code, (DONE, AGAIN), result.said)
        self.cloud.operation_seconds = 0
        if AGAIN in (result.code for result in results) and self.cloud.owner() not in ("a", "b"):
            # Each has a part. Who was told to try again does so.
            node = "ab"[[result.code for result in results].index(AGAIN)]
            self.expect(self.assert_(node), DONE)
        self.assertIn(self.cloud.owner(), ("a", "b"), [result.said for result in results])
        self.held_by(self.cloud.owner())

    def test_operation_takes_its_time(self):
        self.cloud.operation_seconds = 0.7
        self.expect(self.assert_(), DONE)
        self.held_by("a")

    def test_stale_reads_after_the_change(self):
        self.cloud.give("b")
        self.cloud.stale_after_change = 2
        self.expect(self.assert_(), DONE)
        changes = self.cloud.count("change")
        self.assertEqual(self.cloud.owner(), "a")
        self.expect(self.assert_(), DONE, "already")
        self.assertEqual(self.cloud.count("change"), changes)

    def test_one_stale_read_is_no_loss(self):
        self.cloud.give("a")
        self.cloud.apply(lambda state: None)
        self.cloud.give("b")
        self.cloud.stale, self.cloud.state = self.cloud.state, self.cloud.stale
        self.cloud.stale_reads = self.reads_of_a_look
        self.expect(self.verify(), DONE)

    # So many calls does one look make.
    reads_of_a_look = 1


class Release(Case):
    def test_given_up(self):
        self.cloud.give("a")
        result = self.rig.run("a", "release")
        self.expect(result, DONE)
        if self.releases:
            self.assertIsNone(self.cloud.owner())
        else:
            self.assertIn("stays", result.said)
            self.no_change()

    def test_not_mine(self):
        self.cloud.give("b")
        self.expect(self.rig.run("a", "release"), DONE, "nothing to release")
        self.no_change()
        self.assertEqual(self.cloud.owner(), "b")

    # Whether the hook gives anything up at all.
    releases = True


class Trouble(Case):
    """What an API does on a bad day: it is never a loss, and never success."""

    def setUp(self):
        super().setUp()
        self.cloud.give("b")

    def untouched_then_back(self, verify_code=UNKNOWN, assert_code=AGAIN, **words):
        self.expect(self.verify(**words), verify_code)
        self.expect(self.assert_(**words), assert_code)
        self.assertEqual(self.cloud.owner(), "b")
        self.cloud.heal()
        self.expect(self.assert_(), DONE)
        self.assertEqual(self.cloud.owner(), "a")

    def test_connections_are_dropped(self):
        self.cloud.fault("drop", 99)
        self.untouched_then_back()

    def test_server_errors(self):
        self.cloud.fault("error", 99)
        self.untouched_then_back()

    def test_garbage(self):
        self.cloud.fault("garbage", 99)
        self.untouched_then_back()

    def test_answers_are_empty(self):
        self.cloud.fault("empty", 99, only="read")
        self.untouched_then_back()

    def test_answers_are_cut(self):
        self.cloud.fault("cut", 99, only="read")
        self.untouched_then_back()

    def test_a_change_is_answered_in_part(self):
        """It was done, which the next run sees."""
        self.cloud.fault("cut", 1, only="change")
        self.expect(self.assert_(), AGAIN)
        self.assertEqual(self.cloud.count("change"), 1)
        until = time.monotonic() + PATIENCE_S
        while self.assert_().code != DONE:
            self.assertLess(time.monotonic(), until)
        self.assertEqual(self.cloud.owner(), "a")

    def test_hangs(self):
        self.cloud.fault("hang", 99)
        for result, code in ((self.verify(deadline=DEADLINE_S), UNKNOWN), (self.assert_(deadline=DEADLINE_S), AGAIN)):
            # By itself: the fake cloud would wait for a minute.
            self.expect(result, code)
        self.cloud.heal()
        self.expect(self.assert_(), DONE)

    def test_too_many_calls(self):
        self.cloud.fault("busy", 99)
        self.untouched_then_back(verify_code=AGAIN)

    def test_too_many_changes(self):
        self.cloud.fault("busy", 1, only="change")
        self.expect(self.assert_(), AGAIN)
        self.assertEqual(self.cloud.count("change"), 1)
        self.expect(self.assert_(), DONE)

    def test_locked(self):
        self.cloud.fault("locked", 1, only="change")
        self.expect(self.assert_(), AGAIN)
        self.assertEqual(self.cloud.count("change"), 1)
        self.expect(self.assert_(), DONE)

    def test_operation_fails(self):
        self.cloud.operation_fails = 1
        self.cloud.operation_seconds = 0.3
        self.expect(self.assert_(), AGAIN, "fail")
        self.expect(self.assert_(), DONE)
        self.assertEqual(self.cloud.owner(), "a")

    def test_metadata_service_is_down(self):
        self.cloud.metadata_works = False
        self.expect(self.verify(), UNKNOWN)
        self.expect(self.assert_(), AGAIN)
        self.no_change()
        self.cloud.metadata_works = True
        self.expect(self.assert_(), DONE)
        # What is known about oneself is known until the next boot.
        self.cloud.metadata_works = False
        self.cloud.give("b")
        self.expect(self.assert_(), DONE)
        self.expect(self.verify(), DONE)


    def test_metadata_service_says_nothing(self):
        self.cloud.metadata_says_nothing = True
        self.expect(self.verify(), UNKNOWN)
        self.expect(self.assert_(), AGAIN)
        self.assertEqual(self.cloud.calls, [])
        self.cloud.metadata_says_nothing = False
        self.expect(self.assert_(), DONE)


class Permanent(Case):
    """What a person must mend: one call, and no hammering."""

    def test_it_does_not_exist(self):
        config = self.rig.config("a", **self.cloud.wrong_config())
        self.expect(self.assert_(config=config), GIVE_UP)
        if self.cloud.absence_is_seen:
            self.expect(self.verify(config=config), GIVE_UP)
            self.no_change()
        else:
            self.expect(self.verify(config=config), NOT_MINE)
            self.assertEqual(self.cloud.count("change"), 1)

    def test_credentials_are_refused(self):
        self.cloud.credentials_good = False
        self.expect(self.assert_(), GIVE_UP)
        self.no_change()
        self.assertEqual(len(self.cloud.calls), 1 + self.cloud.calls_without_credentials, self.cloud.calls)
        self.expect(self.verify(), GIVE_UP)
        self.cloud.credentials_good = True
        self.expect(self.assert_(), DONE)

    def test_no_permission(self):
        self.cloud.give("b")
        self.cloud.fault("denied", 99, only="change")
        self.expect(self.assert_(), GIVE_UP)
        self.assertEqual(self.cloud.count("change"), 1, self.cloud.calls)


class Interrupted(Case):
    """Killed wherever it is, the next run ends it."""

    def killed_at_the_change(self, fault):
        self.cloud.give("b")
        self.cloud.fault(fault, 1, only="change")
        run = self.rig.start("a", "assert")
        self.wait_for("change")
        run.kill()
        self.cloud.heal()
        result = self.assert_()
        until = time.monotonic() + PATIENCE_S
        while result.code == AGAIN and time.monotonic() < until:
            result = self.assert_()
        self.expect(result, DONE)
        self.held_by("a")

    def test_killed_before_the_change(self):
        self.killed_at_the_change("hang")

    def test_killed_after_the_change(self):
        self.killed_at_the_change("slow")

    def test_killed_while_the_operation_runs(self):
        self.cloud.operation_seconds = 0.5
        self.killed_at_the_change("slow")

    def test_no_secret_is_an_argument(self):
        self.cloud.fault("hang", 1, only="change")
        run = self.rig.start("a", "assert")
        self.wait_for("change")
        arguments = run.arguments()
        run.kill()
        self.assertTrue(any("curl" in each for each in arguments), arguments)
        for secret in self.secrets():
            self.assertFalse([each for each in arguments if secret in each])

    def secrets(self):
        secrets = self.cloud.secrets()
        self.assertTrue(secrets)
        return secrets


class Terms(Case):
    """Only the master of the term that the hook was called for changes anything."""

    def setUp(self):
        super().setUp()
        self.cloud.give("b")

    def test_a_newer_term(self):
        self.rig.master("a", term=8)
        self.expect(self.assert_(term=7), AGAIN, "term 8")
        self.no_change()
        self.expect(self.assert_(term=8), DONE)

    def test_release_too(self):
        self.cloud.give("a")
        self.rig.master("b", term=8)
        result = self.rig.run("a", "release", term=7)
        self.expect(result, AGAIN if self.releases else DONE)
        self.no_change()

    releases = True

    def deposed_at(self, kind):
        """While the first call of that kind is answered slowly."""
        self.cloud.fault("slow", 1, only=kind)
        run = self.rig.start("a", "assert")
        self.wait_for(kind)
        self.rig.master("b", 8)
        self.expect(run.result(), AGAIN, "of b")

    def test_deposed_while_it_looks(self):
        self.deposed_at("read")
        self.no_change()

    def test_deposed_between_two_steps(self):
        self.cloud.stale_after_change = 99
        self.deposed_at("change")
        self.assertEqual(self.cloud.count("change"), 1)


class Config(Case):
    """Refusals that name what is wrong, before the first call."""

    def refused(self, config, *words):
        result = self.assert_(config=config)
        self.expect(result, GIVE_UP, *words)
        self.assertEqual(self.cloud.calls, [])
        for secret in self.cloud.secrets():
            self.assertNotIn(secret, result.said)

    def test_unknown_key(self):
        self.refused(self.rig.config("a", colour="blue"), "'colour'", "cache")

    def test_missing_key(self):
        key = next(iter(self.cloud.config()))
        self.refused(self.rig.config("a", **{key: None}), f"'{key}'")

    def test_a_secret_that_others_can_read(self):
        config = self.rig.config("a")
        config.chmod(0o644)
        if any(secret in config.read_text() for secret in self.cloud.secrets()):
            self.refused(config, "secret")
        else:
            # Without a secret in it, it may be read by all.
            self.expect(self.assert_(config=config), DONE)

    def test_dry_run(self):
        self.cloud.give("b")
        self.expect(self.assert_(environment={"WGHA_DRY_RUN": "1"}), DONE, "dry run")
        self.assertEqual(self.cloud.owner(), "b")


class RandomFaults(Case):
    """Whatever happens meanwhile: when it is over, the master has it, and both nodes know."""

    STEPS = 12

    def test_random_faults(self):
        seed = random.randrange(10**6)
        with self.subTest(seed=seed):
            self.live(random.Random(seed))

    def live(self, rng):
        master = "a"
        for term in range(30, 30 + self.STEPS):
            self.cloud.heal()
            if rng.random() < 0.5:
                master = rng.choice("ab")
            self.trouble(rng)
            if rng.random() < 0.3:
                self.rig.each_its_own(term)
            else:
                self.rig.master(master, term)
            runs = [self.rig.start(node, "assert", term=term, deadline=1) for node in "ab" if node == master or rng.random() < 0.3]
            if rng.random() < 0.5:
                time.sleep(rng.random() * 0.2)
                rng.choice(runs).kill()
            for run in runs:
                if run.process.returncode is None:
                    result = run.result()
                    self.assertIn(result.code, (DONE, AGAIN), result.said)
        self.end(master)

    def trouble(self, rng):
        self.cloud.operation_seconds = rng.choice([0, 0, 0.1, 0.3])
        self.cloud.operation_fails = rng.choice([0, 0, 1]) if self.cloud.asynchronous else 0
        self.cloud.stale_after_change = rng.choice([0, 0, 1, 2])
        if rng.random() < 0.7:
            kind = rng.choice(["busy", "locked", "error", "garbage", "cut", "drop", "hang"])
            # Nothing is locked for those who only read.
            self.cloud.fault(kind, rng.choice([1, 2]), "change" if kind == "locked" else rng.choice(["any", "change", "read"]))

    def end(self, master):
        """As the daemon of the master does it."""
        self.cloud.heal()
        self.cloud.operation_seconds = self.cloud.operation_fails = self.cloud.stale_after_change = self.cloud.stale_reads = 0
        self.rig.master(master, 99)
        for _ in range(5):
            if self.rig.run(master, "assert", term=99).code == DONE:
                break
        self.held_by(master)


GROUPS = (RandomFaults, Assert, Release, Trouble, Permanent, Interrupted, Terms, Config)
