"""promtool on the Prometheus files: they parse, every alert fires when it should, and only then, or the tests tell.

Runs no server: test_live.py.
"""

import copy
import tempfile
import unittest
from pathlib import Path

import yaml

from support import DEPLOY, load, ran, tool


def alerts(rules):
    return [rule for group in rules["groups"] for rule in group["rules"]]


class Rules(unittest.TestCase):
    def setUp(self):
        self.promtool = tool("promtool")

    def outcome_with(self, rules):
        """What promtool makes of alerts_test.yml with these rules in place of alerts.yml."""
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "alerts.yml").write_text(yaml.safe_dump(rules))
            (Path(directory) / "alerts_test.yml").write_text((DEPLOY / "alerts_test.yml").read_text())
            return ran(self.promtool, "test", "rules", f"{directory}/alerts_test.yml")

    def test_the_configuration_is_valid(self):
        code, said = ran(self.promtool, "check", "config", str(DEPLOY / "prometheus.yml"))
        self.assertEqual(code, 0, said)

    def test_the_rules_are_valid(self):
        code, said = ran(self.promtool, "check", "rules", "--lint=all", "--lint-fatal", str(DEPLOY / "alerts.yml"))
        self.assertEqual(code, 0, said)

    def test_the_alerts_pass_their_tests(self):
        code, said = ran(self.promtool, "test", "rules", str(DEPLOY / "alerts_test.yml"))
        self.assertEqual(code, 0, said)

    def test_every_alert_is_seen_to_fire_and_not_to_fire(self):
        cases = [case for test in load("alerts_test.yml")["tests"] for case in test["alert_rule_test"]]
        seen = {(case["alertname"], bool(case["exp_alerts"])) for case in cases}
        names = {rule["alert"] for rule in alerts(load("alerts.yml"))}
        self.assertEqual(seen, {(name, fires) for name in names for fires in (True, False)})

    def test_an_alert_that_never_or_always_fires_or_fires_at_once_is_found_out(self):
        rules = load("alerts.yml")
        for at, rule in enumerate(alerts(rules)):
            mutants = [{"expr": "vector(0) > 1"}, {"expr": "vector(1)"}]
            if "for" in rule:
                mutants.append({"for": "0s"})
            for mutant in mutants:
                spoiled = copy.deepcopy(rules)
                alerts(spoiled)[at].update(mutant)
                with self.subTest(alert=rule["alert"], **mutant):
                    code, said = self.outcome_with(spoiled)
                    self.assertNotEqual(code, 0, said)
