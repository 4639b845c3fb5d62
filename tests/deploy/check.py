"""Runs every test of this directory and prints the count; what was skipped for lack of a tool is said to be unchecked.

Called by `run`, which brings the tools. Knows no test by name.
"""

import sys
import unittest
from pathlib import Path


class Counted(unittest.TextTestResult):
    """Counts what passed: `testsRun` knows nothing of a class whose preparation failed."""

    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


def main():
    suite = unittest.defaultTestLoader.discover(str(Path(__file__).parent))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Counted).run(suite)
    # A test with failing parts is one failure.
    broken = {getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors}
    for reason in sorted({reason for _, reason in result.skipped}):
        print(f"NOT CHECKED: {reason}")
    outcome = "FAILED" if broken else "ok"
    counts = f"{result.passed} passed; {len(broken)} failed; {len(result.skipped)} ignored"
    print(f"test result: {outcome}. {counts}", flush=True)
    return 1 if broken or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main())
