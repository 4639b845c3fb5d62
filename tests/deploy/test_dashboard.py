"""The dashboard is one that Grafana reads: its fields are Grafana's, its panels do not overlap, its PromQL parses.

Whether its queries find data is for test_live.py.
"""

import copy
import json
import tempfile
import unittest

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboard import dashboard, expressions, metric_names
from support import ran, tool


def lost(whole, kept, path="$"):
    """Paths of `whole` that `kept` lacks or has otherwise."""
    if isinstance(whole, dict) and isinstance(kept, dict):
        return [it for key in whole for it in lost(whole[key], kept.get(key), f"{path}.{key}")]
    if isinstance(whole, list) and isinstance(kept, list) and len(whole) == len(kept):
        return [it for at, item in enumerate(whole) for it in lost(item, kept[at], f"{path}[{at}]")]
    return [] if whole == kept else [path]


def unknown_fields(board):
    """What Grafana's own model of a dashboard drops when it reads and writes the board."""
    return lost(board, json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder)))


def parsed(queries):
    """promtool's verdict on the expressions, as the rules of a file."""
    rules = [{"record": f"panel:{at}", "expr": query} for at, query in enumerate(queries)]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        file.flush()
        return ran(tool("promtool"), "check", "rules", file.name)


def cells(panel):
    grid = panel["gridPos"]
    return {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}


class Board(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        register_default_plugins()
        cls.board = dashboard()

    def test_every_field_is_one_of_grafanas(self):
        self.assertEqual(unknown_fields(self.board), [])

    def test_a_field_that_is_not_grafanas_is_found_out(self):
        for place, path in ((0, "$.panels[0].titel"), (1, "$.panels[1].options.graphMod")):
            spoiled = copy.deepcopy(self.board)
            panel = spoiled["panels"][place]
            (panel["options"] if "options" in path else panel)[path.rpartition(".")[2]] = "none"
            with self.subTest(path):
                self.assertEqual(unknown_fields(spoiled), [path])

    def test_panels_fill_the_grid_without_overlap(self):
        taken = [cell for panel in self.board["panels"] for cell in cells(panel)]
        self.assertEqual(len(taken), len(set(taken)))
        height = max(y for _, y in taken) + 1
        self.assertEqual(set(taken), {(x, y) for x in range(24) for y in range(height)})

    def test_panels_are_told_apart_and_explained(self):
        ids = [panel["id"] for panel in self.board["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        for panel in self.board["panels"]:
            if panel["type"] != "row":
                self.assertTrue(panel["title"] and panel["description"] and panel["targets"], panel["title"])
                self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])

    def test_every_query_is_asked_of_the_chosen_source_and_servers(self):
        (source, instance) = self.board["templating"]["list"]
        chosen = {"type": "prometheus", "uid": f"${{{source['name']}}}"}
        for panel in self.board["panels"]:
            for target in panel.get("targets", []):
                self.assertEqual(panel["datasource"], chosen)
                selectors = target["expr"].count("{")
                self.assertEqual(target["expr"].count(f'{instance["name"]}=~"${instance["name"]}"'), selectors)
                self.assertEqual(selectors, target["expr"].count("callsmith_") + target["expr"].count("up{"))

    def test_every_expression_parses_and_mistakes_do_not(self):
        queries = [query for _, query, _ in expressions(self.board)]
        code, said = parsed(queries)
        self.assertEqual(code, 0, said)
        self.assertIn(f"{len(queries)} rules found", said)
        for mistake in ("sum(rate(up[1m])", "rate(callsmith_requests_total)", "sum by outcome (up)"):
            code, said = parsed([*queries, mistake])
            self.assertNotEqual(code, 0, said)

    def test_metric_names_are_told_from_everything_else(self):
        for expression, names in (
            ('sum by (le, job) (rate(a_bucket{b="c{d}", e=~"f(g)"}[5m]))', {"a_bucket"}),
            ("topk(3, sum(rate(a:b[1h:5m] offset 1d))) / on (x) group_left (y) vllm:c > bool 1e3", {"a:b", "vllm:c"}),
            ("a and (b unless c) or absent(up)", {"a", "b", "c", "up"}),
        ):
            self.assertEqual(metric_names(expression), names, expression)
