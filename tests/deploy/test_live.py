"""A real Prometheus scrapes a real callsmith, both as deploy/ starts them: every panel, alert and probe has its answer.

The one substitution in prometheus.yml: its target and its interval, and the labels that the Prometheus operator adds.
"""

import json
import re
import sys
import tempfile
import unittest
import urllib.parse
from contextlib import ExitStack
from pathlib import Path

import yaml

from dashboard import dashboard, expressions, metric_names
from support import DEPLOY, ROOT, call, callsmith, container, load, manifest, prometheus, status, tool, until

sys.path.append(str(ROOT / "tests/shared"))
from zero_adapter import write_adapter  # noqa: E402

POD = {"namespace": "default", "pod": "callsmith-0"}
CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "City name"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "Get the current weather for a city.", "parameters": CITY}
PROBES = "startupProbe", "livenessProbe", "readinessProbe"


def local(args, root):
    """The arguments of a container, for this machine: any free port, directories that exist here."""
    here = {
        "--host": "127.0.0.1",
        "--port": "0",
        "--adapter-root": str(root),
        "--model": str(ROOT / "models/embedded"),
        "--served-model-name": manifest("InferenceService")["metadata"]["name"],
    }
    pairs = [argument.partition("=") for argument in args]
    return [f"{name}={here.get(name, value)}" if equals else name for name, equals, value in pairs]


def scraped_paths():
    return [endpoint["path"] for endpoint in manifest("PodMonitor")["spec"]["podMetricsEndpoints"]]


def dockerfile_arguments():
    """CMD of the Dockerfile, its options as `--name=value`."""
    command = re.search(r"(?m)^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text())[1]
    subcommand, *rest = json.loads(command)
    return [subcommand, *(f"{name}={value}" for name, value in zip(rest[::2], rest[1::2], strict=True))]


def alerts():
    return [rule for group in load("alerts.yml")["groups"] for rule in group["rules"]]


def scrape_configuration(address):
    """prometheus.yml for a server at that address, scraped often."""
    config = load("prometheus.yml")
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(DEPLOY / name) for name in config["rule_files"]]
    (scrape,) = config["scrape_configs"]
    scrape["static_configs"] = [{"targets": [address.removeprefix("http://")], "labels": POD}]
    return yaml.safe_dump(config)


class Observed(unittest.TestCase):
    """The Deployment's container and its keys, a few requests, and Prometheus."""

    @classmethod
    def setUpClass(cls):
        tool("prometheus")
        cls.keys = manifest("Secret")["stringData"]
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_adapter(directory / "adapter")
            arguments = local(container(manifest("Deployment"))["args"], directory)
            cls.callsmith = stack.enter_context(callsmith(arguments, cls.keys))
            (directory / "prometheus.yml").write_text(scrape_configuration(cls.callsmith))
            cls.prometheus = stack.enter_context(prometheus(directory / "prometheus.yml", directory))
            cls.send_requests()
            cls.wait_for_samples()
            cls.stack = stack.pop_all()
        cls.addClassCleanup(cls.stack.close)

    @classmethod
    def send_requests(cls):
        """Something of everything that the dashboard shows: calls, text, an error, an adapter."""
        tools = [{"type": "function", "function": WEATHER}]
        asked = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "temperature": 0}
        adapter = {"lora_name": "crm", "lora_path": "adapter"}
        for route, body, wanted in (
            ("chat/completions", {**asked, "model": "callsmith", "tools": tools}, 200),
            ("chat/completions", {**asked, "model": "callsmith", "tools": tools, "tool_choice": "required"}, 200),
            ("chat/completions", {**asked, "model": "callsmith", "max_tokens": 8}, 200),
            ("chat/completions", {**asked, "model": "nobody"}, 404),
            ("load_lora_adapter", adapter, 200),
            ("chat/completions", {**asked, "model": "crm", "tools": tools}, 200),
        ):
            code, said = call(f"{cls.callsmith}/v1/{route}", body, cls.keys["CALLSMITH_ADMIN_KEY"])
            assert code == wanted, f"{route}: {code} {said}"

    @classmethod
    def wait_for_samples(cls):
        """Two scrapes after the last request: a rate needs two samples."""
        seen = "count_over_time(callsmith_requests_total{model='crm'}[1m]) >= 2"
        until(lambda: cls.query(seen), "two scrapes after the last request")

    @classmethod
    def query(cls, expression):
        """The series that Prometheus finds now."""
        code, text = call(f"{cls.prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        assert code == 200, f"{expression}: {text}"
        return json.loads(text)["data"]["result"]

    def value(self, expression):
        (only,) = self.query(expression)
        return float(only["value"][1])

    def test_the_target_is_up(self):
        self.assertEqual(self.value('up{job="callsmith"}'), 1)

    def test_own_metrics_count_what_was_sent(self):
        for expression, wanted in (
            ("sum(callsmith_requests_total{outcome!='refused'})", 4),
            ("sum(callsmith_requests_total{outcome='tool_calls'}) >= bool 2", 1),
            ("callsmith_requests_total{model='crm'}", 1),
            ("callsmith_errors_total{code='model_not_found'}", 1),
            ("callsmith_constraint_violations_total", 0),
            ("callsmith_adapters_resident", 1),
            ("callsmith_adapter_loads_total{outcome='loaded'}", 1),
            ("callsmith_forced_tokens_total < bool callsmith_generated_tokens_total", 1),
            ("callsmith_time_to_first_token_seconds_count", 4),
        ):
            with self.subTest(expression):
                self.assertEqual(self.value(expression), wanted)

    def test_gateways_find_the_names_that_they_read(self):
        for name in ("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc"):
            (series,) = self.query(f"vllm:{name}")
            self.assertEqual(series["metric"]["model_name"], "callsmith")
        (cache,) = self.query("vllm:cache_config_info")
        self.assertLessEqual({"block_size", "num_gpu_blocks"}, set(cache["metric"]))
        # Read as it is sent: Prometheus drops labels that are empty, the endpoint picker does not.
        (lora,) = re.findall(r"(?m)^vllm:lora_requests_info\{(.*)\}", call(f"{self.callsmith}/metrics")[1])
        labels = {"max_lora", "running_lora_adapters", "waiting_lora_adapters"}
        self.assertLessEqual(labels, set(re.findall(r'(\w+)="', lora)))
        (loaded,) = self.query("vllm:lora_adapter_loaded")
        self.assertEqual(loaded["metric"]["adapter_name"], "crm")

    def test_every_metric_of_the_dashboard_and_the_alerts_exists(self):
        code, text = call(f"{self.callsmith}/metrics")
        self.assertEqual(code, 200)
        # `up` is Prometheus's own.
        known = set(re.findall(r"(?m)^([a-zA-Z_:][\w:]*)[{ ]", text)) | {"up"}
        used = {title: metric_names(query) for title, query, _ in expressions(dashboard())}
        used |= {rule["alert"]: metric_names(rule["expr"]) for rule in alerts()}
        self.assertEqual({title: names - known for title, names in used.items() if names - known}, {})
        self.assertTrue(all(used.values()), "an expression without a metric")
        # And a name that does not exist would be noticed.
        self.assertNotIn("callsmith_request_total", known)

    def test_every_panel_shows_something(self):
        for title, query, legend in expressions(dashboard()):
            with self.subTest(panel=title, query=query):
                found = self.query(query)
                self.assertNotEqual(found, [])
                for series in found:
                    self.assertLessEqual(legend, set(series["metric"]))
        self.assertEqual(self.query("rate(callsmith_request_total[1m])"), [])

    def test_the_dashboard_lists_the_server(self):
        (_, instance) = dashboard()["templating"]["list"]
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", instance["query"]["query"]).groups()
        (series,) = self.query(metric)
        self.assertEqual(series["metric"][label], self.callsmith.removeprefix("http://"))

    def test_the_autoscaler_gets_its_metric(self):
        (rule,) = load("kubernetes/prometheus-adapter.values.yaml")["rules"]["custom"]
        self.assertEqual(len(self.query(rule["seriesQuery"])), 1)
        (metric,) = manifest("HorizontalPodAutoscaler")["spec"]["metrics"]
        filled = rule["metricsQuery"]
        for variable, value in (
            ("<<.Series>>", metric["pods"]["metric"]["name"]),
            ("<<.LabelMatchers>>", ",".join(f'{label}="{value}"' for label, value in POD.items())),
            ("<<.GroupBy>>", "pod"),
        ):
            self.assertIn(variable, filled)
            filled = filled.replace(variable, value)
        (series,) = self.query(filled)
        self.assertEqual((series["metric"], float(series["value"][1])), ({"pod": POD["pod"]}, 0))

    def test_alerts_are_evaluated_and_none_fires(self):
        def states():
            groups = json.loads(call(f"{self.prometheus}/api/v1/rules")[1])["data"]["groups"]
            return [(rule["name"], rule["health"], rule["state"]) for group in groups for rule in group["rules"]]

        # CallsmithAbsent is pending from Prometheus's start to its first scrape.
        wanted = [(rule["alert"], "ok", "inactive") for rule in alerts()]
        until(lambda: states() == wanted, "every alert is evaluated and inactive")

    def test_keys_open_what_the_secret_says(self):
        model, load_again = {"model": "callsmith", "messages": []}, {"lora_name": "other", "lora_path": "adapter"}
        for route, body, key, wanted in (
            ("chat/completions", model, None, 401),
            ("chat/completions", model, "a wrong key", 401),
            ("chat/completions", model, self.keys["CALLSMITH_API_KEY"], 400),
            ("load_lora_adapter", load_again, self.keys["CALLSMITH_API_KEY"], 403),
        ):
            with self.subTest(route=route, key=key):
                self.assertEqual(call(f"{self.callsmith}/v1/{route}", body, key)[0], wanted)
        # What a gateway's endpoint picker, which has no key, may ask for, and what not.
        self.assertEqual(status(f"{self.callsmith}/metrics"), 200)
        self.assertEqual(status(f"{self.callsmith}/v1/models"), 401)


class Started(unittest.TestCase):
    """Each way in which deploy/ starts callsmith starts it, its probes answer, and SIGTERM ends it well."""

    def probed(self, arguments, paths, model):
        with tempfile.TemporaryDirectory() as root, callsmith(local(arguments, root)) as address:
            for path in paths:
                self.assertEqual(status(address + path), 200, path)
            self.assertEqual(status(f"{address}/no-such-probe"), 404)
            code, text = call(f"{address}/v1/models")
            self.assertEqual((code, json.loads(text)["data"][0]["id"]), (200, model))

    def test_the_deployment(self):
        serving = container(manifest("Deployment"))
        paths = [serving[probe]["httpGet"]["path"] for probe in PROBES] + scraped_paths()
        self.probed(serving["args"], paths, "callsmith")

    def test_the_kserve_runtime(self):
        runtime = manifest("ServingRuntime")
        serving = container(runtime)
        self.assertIn("--served-model-name={{.Name}}", serving["args"])
        paths = [serving[probe]["httpGet"]["path"] for probe in PROBES] + scraped_paths()
        paths.append(runtime["spec"]["annotations"]["prometheus.kserve.io/path"])
        self.probed(serving["args"], paths, manifest("InferenceService")["metadata"]["name"])

    def test_the_image(self):
        health = re.search(r"'GET (\S+) HTTP/1\.0", (DEPLOY / "Dockerfile").read_text())[1]
        self.probed(dockerfile_arguments(), [health], "callsmith")
