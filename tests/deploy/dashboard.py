"""The dashboard's panels and PromQL, and the metric names that PromQL uses.

Reads the expressions as text: whether they parse is for promtool to say, whether they find data for Prometheus.
"""

import json
import re

from support import DEPLOY

DASHBOARDS = DEPLOY / "grafana/dashboards"
# What Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*"}
WORDS = "and or unless by without on ignoring group_left group_right bool offset inf nan".split()


def dashboard():
    return json.loads((DASHBOARDS / "callsmith.json").read_text())


def expressions(board):
    """(panel's title, PromQL as Grafana would send it, labels that the legend shows) of every query."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            labels = re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))
            yield panel["title"], filled_in(target["expr"]), set(labels)


def filled_in(expression):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"a variable that Grafana does not know: {expression}"
    return expression


def metric_names(expression):
    """The names of the series that the expression selects."""
    # In this order: what strings hold is no syntax; braces, brackets and groupings hold labels and times.
    strings, grouping = r'"(?:[^"\\]|\\.)*"', r"\b(?:by|without|on|ignoring|group_\w+)\s*\([^)]*\)"
    for noise in (strings, r"\{[^}]*\}", r"\[[^]]*\]", grouping):
        expression = re.sub(noise, " ", expression)
    # A name before a parenthesis is a function, also where a grouping stood in between.
    names = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])", expression)
    return {name for name in names if name.lower() not in WORDS}
