"""Runs tests side by side, since most of them wait: python runner.py [MODULE[.CLASS[.TEST]]...]"""

import sys
import time
import unittest
from concurrent.futures import ThreadPoolExecutor, as_completed

MODULES = ("test_moto", "test_clients", "test_docs", "test_dns", "test_signed", "test_claims", "test_peculiar", "test_library", "test_speed")
AT_ONCE = 10


def each(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        else:
            yield test


def run(test):
    began = time.monotonic()
    result = unittest.TestResult()
    test.run(result)
    return test.id(), result, time.monotonic() - began


def main():
    began = time.monotonic()
    names = sys.argv[1:] or MODULES
    tests = list(each(unittest.defaultTestLoader.loadTestsFromNames(names)))
    # Times are taken when nothing else runs.
    alone = [test for test in tests if getattr(test, "alone", False)]
    failed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for future in as_completed([pool.submit(run, test) for test in tests if test not in alone]):
            failed += report(*future.result())
    for test in alone:
        failed += report(*run(test))
    print(f"hooks: {len(tests)} tests, {failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed or not tests else 0


def report(name, result, seconds):
    """1 if it failed, or was not run at all."""
    # With what a subTest was about: the seed, for example.
    problems = [f"{what}\n{trace}" for what, trace in result.errors + result.failures] + [f"skipped: {why}" for _, why in result.skipped]
    good = not problems and result.testsRun == 1
    print(f"{name} {'ok' if good else 'FAILED'} ({seconds:.1f} s)", flush=True)
    for problem in problems:
        print(problem, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
