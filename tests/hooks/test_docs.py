"""What the documentation shows for the hooks' config files is what the hooks take, and their policies are the hooks' own."""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from rig import HOOKS
from test_moto import documented_policy

ROOT = HOOKS.parents[1]
PAGES = sorted((ROOT / "docs").glob("**/*.md"))


def blocks(kind):
    for page in PAGES:
        for text in re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
            yield page, text


def run(hook, text):
    """What a hook says of a config to which a key was added that no hook has."""
    with tempfile.NamedTemporaryFile("w", prefix="wgha-docs-") as file:
        file.write(text + "\nno_hook_has_this = 1\n")
        file.flush()
        command = [HOOKS / hook, file.name, "verify"]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "WGHA_NODE": "gw1"}, timeout=20)


def actions(policy):
    listed = [statement["Action"] for statement in policy["Statement"]]
    return {action for each in listed for action in ([each] if isinstance(each, str) else each)}


class Docs(unittest.TestCase):
    def refused_for_the_added_key_alone(self, hook, text):
        result = run(hook, text)
        self.assertEqual(result.returncode, 78, result.stdout)
        self.assertIn("unknown key 'no_hook_has_this'", result.stdout)

    def test_config_files_in_pages(self):
        seen = set()
        for page, text in blocks("ini"):
            match = re.match(r"# /etc/wgha/([\w-]+)\.conf\n", text)
            if match:
                with self.subTest(page=page.name, hook=match[1]):
                    self.refused_for_the_added_key_alone(match[1], text)
                    seen.add(match[1])
        self.assertGreaterEqual(len(seen), 7, seen)

    def test_config_at_the_hooks_heads(self):
        """With every key that is commented out there, too."""
        for path in sorted(HOOKS.glob("*-*")):
            lines = [line.removeprefix("#     ").removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("#     ")]
            pairs = [line for line in lines if re.match(r"[a-z0-9_]+ = \S", line) and '"' not in line and "[" not in line]
            with self.subTest(hook=path.name):
                self.assertTrue(pairs)
                self.refused_for_the_added_key_alone(path.name, "\n".join(pairs))

    def test_programs_that_pages_name_exist(self):
        named = 0
        for page in PAGES:
            for name in re.findall(r"/usr/share/wgha/hooks/([\w-]+)", page.read_text()):
                self.assertTrue(os.access(HOOKS / name, os.X_OK), f"{page}: {name}")
                named += 1
        self.assertGreater(named, 10)

    def test_every_hook_is_on_a_page(self):
        text = "".join(page.read_text() for page in PAGES)
        readme = (HOOKS / "README.md").read_text()
        for path in HOOKS.glob("*-*"):
            self.assertIn(f"`{path.name}`", text)
            self.assertIn(f"]({path.name})", readme)

    def test_links_lead_somewhere(self):
        for page in PAGES:
            for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
                if "://" not in link:
                    self.assertTrue((page.parent / link).exists(), f"{page}: {link}")

    def test_the_policy_for_aws(self):
        (text,) = [text for page, text in blocks("json") if page.name == "aws.md"]
        self.assertEqual(actions(json.loads(text)), actions(documented_policy("aws-secondary-ip")))

    def test_all_json_is_valid(self):
        found = [json.loads(text) for _, text in blocks("json")]
        self.assertGreaterEqual(len(found), 3)


if __name__ == "__main__":
    unittest.main()
