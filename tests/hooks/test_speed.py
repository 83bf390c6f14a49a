"""How long an assert takes against the fake cloud on this machine: printed, and no test: CI has slow days."""

import shutil
import statistics
import subprocess
import time
import unittest

from fake import aws
from rig import Rig
from test_claims import CLOUDS

RUNS = 5
TARGET_MS = 150


class Speed(unittest.TestCase):
    alone = True

    def rig(self, cloud):
        rig = Rig(cloud)
        self.addCleanup(rig.close)
        return rig

    def test_assert(self):
        """Each from the peer: process start, looking, the change, looking again."""
        for make_cloud in CLOUDS:
            cloud = make_cloud()
            rig = self.rig(cloud)
            tables = cloud.config().get("route_tables")
            config = rig.config("a", **({"route_tables": tables.split()[0]} if tables else {}))
            times = []
            for _ in range(RUNS + 1):
                cloud.give("b")
                changes = cloud.count("change")
                result = rig.run("a", "assert", config=config)
                self.assertEqual(result.code, 0, result.said)
                self.assertGreater(cloud.count("change"), changes)
                times.append(result.seconds * 1000)
            cold, warm = times[0], statistics.median(times[1:])
            word = "" if warm < TARGET_MS else f", more than the {TARGET_MS} ms that are wanted"
            print(f"speed: {cloud.hook}: {warm:.0f} ms (first time {cold:.0f} ms){word}", flush=True)

    def test_beside_the_aws_command(self):
        """One call of the three that the hook makes."""
        if not shutil.which("aws"):
            print("speed: the aws command is not installed", flush=True)
            return
        cloud = aws.AwsEip()
        rig = self.rig(cloud)
        command = [
            "aws", "--region", "eu-central-1", "--endpoint-url", rig.endpoint(), "ec2", "associate-address",
            "--allocation-id", aws.ALLOCATION, "--network-interface-id", aws.ENIS["a"], "--allow-reassociation",
        ]
        cloud.give("b")
        began = time.monotonic()
        subprocess.run(rig.nodes["a"].command(*command), check=True, stdout=subprocess.DEVNULL)
        milliseconds = (time.monotonic() - began) * 1000
        self.assertEqual(cloud.owner(), "a")
        print(f"speed: aws ec2 associate-address, that call alone: {milliseconds:.0f} ms", flush=True)
