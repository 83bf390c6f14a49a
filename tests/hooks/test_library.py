"""What is the shared library's own, tried with one hook; and its reader of JSON."""

import itertools
import json
import os
import random
import re
import stat
import subprocess
import unittest

import cases
from cases import AGAIN, DONE, GIVE_UP, UNKNOWN
from fake.cloud import SLOW_SECONDS
from fake.hetzner import Hetzner
from rig import HOOKS


class Library(cases.Config):
    make_cloud = Hetzner

    def stub(self, program, says):
        path = self.rig.directory / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{says}'\n")
        path.chmod(0o755)
        return {"PATH": f"{path.parent}:{os.environ['PATH']}"}

    def setUp(self):
        super().setUp()
        for node in self.rig.nodes:
            self.rig.forget(node)

    def test_back_and_forth(self):
        for term, node in enumerate("abab", start=20):
            self.rig.master(node, term)
            self.expect(self.assert_(node, term=term), DONE)
        self.held_by("b")

    def test_nobody_listens(self):
        config = self.rig.config("a", endpoint=f"http://127.0.0.1:1{self.cloud.base}")
        self.expect(self.verify(config=config), UNKNOWN)
        self.expect(self.assert_(config=config), AGAIN)
        self.expect(self.assert_(), DONE)

    def test_slow(self):
        self.cloud.fault("slow", 2)
        result = self.assert_()
        self.expect(result, DONE)
        self.assertGreater(result.seconds, 2 * SLOW_SECONDS)

    def test_another_node(self):
        self.rig.master("b", term=7)
        self.expect(self.assert_(term=7), AGAIN, "of b")
        self.no_change()

    def test_no_term_file(self):
        (self.rig.directory / "a" / "term").unlink()
        self.expect(self.assert_(), AGAIN)
        self.no_change()

    def test_by_hand(self):
        self.expect(self.assert_(environment={"WGHA_TERM_FILE": ""}), DONE)

    def test_old_curl(self):
        result = self.assert_(environment=self.stub("curl", "curl 7.81.0 (x86_64-pc-linux-gnu)"))
        self.expect(result, GIVE_UP, "curl is 7.81.0: 7.86 or later")

    def test_old_jq(self):
        result = self.assert_(environment=self.stub("jq", "jq-1.5-1-a5b5cbe"))
        self.expect(result, GIVE_UP, "jq is 1.5-1-a5b5cbe: 1.6 or later")

    def test_new_curl_and_jq(self):
        for curl in ("curl 8.0.1 (x)", "curl 10.0.0 (x)"):
            environment = self.stub("curl", curl)
            self.stub("jq", "jq-1.8.1")
            # These two do nothing but tell their version.
            self.expect(self.verify(environment=environment), UNKNOWN)

    def test_no_curl(self):
        # A path with what the library needs, but for curl.
        directory = self.rig.directory / "bin"
        directory.mkdir()
        for program in ("sh", "tr", "ls", "date", "mkdir", "mv", "jq", "cksum"):
            (directory / program).symlink_to(f"/usr/bin/{program}")
        library = (HOOKS / "lib.sh").read_text()
        copy = self.rig.directory / "hooks"
        copy.mkdir()
        (copy / "lib.sh").write_text(library.replace("PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin", f"PATH={directory}"))
        (copy / Hetzner.hook).symlink_to(HOOKS / Hetzner.hook)
        self.rig.hooks = copy
        self.expect(self.assert_(), GIVE_UP, "curl is missing", "apt-get install curl")

    def test_usage(self):
        config = self.rig.config("a")
        for arguments in ((), ("assert",), (config,), (config, "asert"), (config, "assert", "more")):
            result = self.rig.start("a", "assert", arguments=arguments).result()
            self.expect(result, GIVE_UP, "usage: hetzner-floating-ip CONFIG assert|verify|release")

    def test_other_shells(self):
        for shell in (["bash", "--posix"], ["busybox", "sh"]):
            self.cloud.give("b")
            self.expect(self.rig.start("a", "assert", shell=shell).result(), DONE)

    def test_secret_in_a_file(self):
        secret = self.rig.directory / "token"
        secret.write_text(f"{self.cloud.token}\n")
        secret.chmod(0o600)
        config = self.rig.config("a", token=None, token_file=secret)
        config.chmod(0o644)
        self.expect(self.assert_(config=config), DONE)
        secret.chmod(0o640)
        self.expect(self.verify(config=config), GIVE_UP, "only its owner")
        secret.unlink()
        self.expect(self.verify(config=config), GIVE_UP, "cannot read")
        self.expect(self.verify(config=self.rig.config("a", token=None)), GIVE_UP, "'token'", "'token_file'")

    def test_not_a_pair(self):
        config = self.rig.config("a")
        config.write_text(config.read_text() + "oops\n")
        self.refused(config, "not KEY=value")

    def test_a_value_that_breaks_out(self):
        key = next(iter(self.cloud.config()))
        for value in ('x"y', "x\\y", "x\ty"):
            self.refused(self.rig.config("a", **{key: value}), key)

    def test_nothing_is_executed(self):
        mark = self.rig.directory / "mark"
        key = next(iter(self.cloud.config()))
        self.assert_(config=self.rig.config("a", **{key: f"$(touch {mark})`touch {mark}`"}))
        self.assertFalse(mark.exists())

    def test_no_such_file(self):
        self.refused(self.rig.directory / "none", "none")

    def test_quotes_and_comments(self):
        config = self.rig.config("a")
        config.write_text(f'# a comment\n  \n floating_ip="4711"\ntoken = \'{self.cloud.token}\'\nendpoint = {self.rig.endpoint()}')
        config.chmod(0o600)
        self.expect(self.assert_(config=config), DONE)

    def test_what_is_remembered_is_for_its_owner(self):
        self.expect(self.assert_(), DONE)
        cache = self.rig.directory / "a" / "cache"
        self.assertEqual(stat.S_IMODE(cache.stat().st_mode), 0o700)
        files = list(cache.iterdir())
        self.assertTrue(files)
        for file in files:
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)

    def test_a_cache_that_cannot_be_written(self):
        self.expect(self.assert_(config=self.rig.config("a", cache="/proc/none")), DONE)

    def test_bad_deadline(self):
        self.expect(self.assert_(deadline="soon"), GIVE_UP, "WGHA_DEADLINE_S")

    def test_fraction_of_a_second(self):
        self.expect(self.assert_(deadline="5.25"), DONE)

    def test_no_proxy_between_here_and_the_metadata_service(self):
        """A proxy would be asked for the API, and never for who this machine is."""
        environment = {"http_proxy": "http://127.0.0.1:9"}
        self.expect(self.verify(environment=environment), UNKNOWN, "127.0.0.1 port 9")
        self.assertTrue(any(path.name.endswith(".identity") for path in (self.rig.directory / "a" / "cache").iterdir()))


def random_json(rng, depth=0):
    kind = rng.randrange(8 if depth < 4 else 6)
    if kind == 6:
        return [random_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {rng.choice("abcde"): random_json(rng, depth + 1) for _ in range(rng.randrange(4))}
    word = "".join(rng.choice('xyz /"\\{}[],:') for _ in range(rng.randrange(6)))
    return rng.choice([word, rng.randrange(-99, 10**12), rng.random() * 1e-9, True, False, None])


def found(value, path):
    """What fields.awk is to say."""
    for step in path.split("."):
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return ""
    if isinstance(value, str):
        return value
    return "" if value is None or isinstance(value, (dict, list)) else json.dumps(value)


class Fields(unittest.TestCase):
    """fields.awk against Python's reader of JSON."""

    paths = [".".join(steps) for length in (1, 2, 3) for steps in itertools.product("abc012", repeat=length)]

    def awk(self, text, awk=("awk",)):
        command = [*awk, "-v", "paths=" + " ".join(self.paths), "-f", HOOKS / "fields.awk"]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    def test_random_values(self):
        seed = random.randrange(10**6)
        rng = random.Random(seed)
        for awk in (("awk",), ("busybox", "awk")):
            for number in range(60):
                value = {letter: random_json(rng) for letter in "abc"}
                text = json.dumps(value, indent=rng.choice([None, 2]))
                got = self.awk(text, awk)
                want = "".join(found(value, path) + "\n" for path in self.paths)
                self.assertEqual((got.returncode, got.stdout), (0, want), f"seed {seed}, {number}: {text}")

    def test_rows(self):
        seed = random.randrange(10**6)
        rng = random.Random(seed)
        for number in range(60):
            value = {"a": [random_json(rng, 1) for _ in range(5)], "b": random_json(rng)}
            command = ["awk", "-v", "list_at=a", "-v", "paths=a b.c 0", "-f", HOOKS / "fields.awk"]
            got = subprocess.run(command, input=json.dumps(value), capture_output=True, text=True, check=True).stdout
            rows = [row for row in value["a"] if isinstance(row, dict)]
            want = "".join("".join(found(row, path).replace("|", " ") + "|" for path in ("a", "b.c", "0")) + "\n" for row in rows)
            self.assertEqual(got, want, f"seed {seed}, {number}: {value}")

    def test_what_is_no_json(self):
        seed = random.randrange(10**6)
        rng = random.Random(seed)
        broken = ["", " ", "{", "}", "[1,]", '{"a":1,}', '{"a"}', '{"a":}', '{1:2}', '{"a" 1}', "[1 2]", "1 2", "<html>", "{]", "[}", "nul", '"a', "[,1]", ","]
        while len(broken) < 60:
            text = json.dumps({letter: random_json(rng) for letter in "abc"})
            at = rng.randrange(len(text))
            text = text[:at] + text[at + 1 :]
            try:
                json.loads(text, strict=False)
            except ValueError as error:
                # It is lenient with numbers and with what is in strings.
                if "escape" not in str(error) and not re.search(r"-|\b0\d|\d\.", text):
                    broken.append(text)
        for text in broken:
            self.assertEqual(self.awk(text).returncode, 1, f"seed {seed}: {text}")
