"""What the files of deploy/ say to each other and to the binary: ports, labels, names, times, memory, environment.

Schemas see none of this: a Service whose selector no pod bears is a valid Service.
"""

import copy
import re
import unittest

from support import BINARY, DEPLOY, container, load, manifest, manifests, ran

V1, ALPHA = "inference.networking.k8s.io/v1", "inference.networking.x-k8s.io/v1alpha2"


def option(args, name):
    """The value of `--name=value` among the arguments."""
    (value,) = [argument.partition("=")[2] for argument in args if argument.startswith(f"--{name}=")]
    return value


def dockerfile(instruction):
    """What follows the last such instruction of the Dockerfile."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    return re.findall(rf"^{instruction} +(.*)$", text, re.M)[-1]


def mebibytes(quantity):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * (1024 if unit == "Gi" else 1)


def workloads():
    """{kind: (labels of its pods, their container)} of what runs pods."""
    deployment, predictor = manifest("Deployment"), manifest("InferenceService")["spec"]["predictor"]
    return {
        "Deployment": (deployment["spec"]["template"]["metadata"]["labels"], container(deployment)),
        "InferenceService": (predictor["labels"], container(manifest("ServingRuntime"))),
    }


def scrapes(monitor, labels, serving):
    """How many of the PodMonitor's endpoints scrape a pod with these labels and this container."""
    if not monitor["selector"]["matchLabels"].items() <= labels.items():
        return 0
    ports = [port["name"] for port in serving["ports"]]
    return sum(endpoint["port"] in ports for endpoint in monitor["podMetricsEndpoints"])


def backends(documents):
    """(file name, backend) of every backend of an HTTPRoute."""
    for name, document in documents:
        if document["kind"] == "HTTPRoute":
            for rule in document["spec"]["rules"]:
                yield from ((name, backend) for backend in rule["backendRefs"])


def unmatched(documents):
    """Pools that no HTTPRoute of their file has as a backend, and backends that are no pool of their file."""
    pools = {
        (name, document["apiVersion"].partition("/")[0], document["kind"], document["metadata"]["name"])
        for name, document in documents
        if document["kind"] == "InferencePool"
    }
    return pools ^ {(name, it.get("group"), it.get("kind"), it["name"]) for name, it in backends(documents)}


class Kubernetes(unittest.TestCase):
    def setUp(self):
        self.deployment = manifest("Deployment")
        self.pod = self.deployment["spec"]["template"]
        self.serving = [(container(self.deployment), self.pod["spec"]), (container(manifest("ServingRuntime")), None)]

    def test_every_selector_finds_the_deployments_pods_and_not_kserves(self):
        selectors = {
            "Deployment": self.deployment["spec"]["selector"]["matchLabels"],
            "Service": manifest("Service")["spec"]["selector"],
            "pool": manifest("InferencePool", V1)["spec"]["selector"]["matchLabels"],
            "alpha pool": manifest("InferencePool", ALPHA)["spec"]["selector"],
        }
        own, kserves = (labels for labels, _ in workloads().values())
        for name, selector in selectors.items():
            with self.subTest(name):
                self.assertLessEqual(selector.items(), own.items())
                self.assertFalse(selector.items() <= kserves.items())

    def test_every_workload_is_scraped_once_as_the_job_of_the_alerts(self):
        monitor = manifest("PodMonitor")["spec"]
        (scrape,) = load("prometheus.yml")["scrape_configs"]
        for name, (labels, serving) in workloads().items():
            with self.subTest(name):
                self.assertEqual(scrapes(monitor, labels, serving), 1)
                self.assertEqual(labels[monitor["jobLabel"]], scrape["job_name"])
        self.assertIn(f'job="{scrape["job_name"]}"', (DEPLOY / "alerts.yml").read_text())

    def test_a_workload_that_is_not_scraped_is_found_out(self):
        monitor = manifest("PodMonitor")["spec"]
        for name, (labels, serving) in workloads().items():
            unlabelled = {label: labels[label] for label in labels.keys() - monitor["selector"]["matchLabels"].keys()}
            elsewhere = {"ports": [{**port, "name": "elsewhere"} for port in serving["ports"]]}
            with self.subTest(name):
                self.assertEqual(scrapes(monitor, unlabelled, serving), 0)
                self.assertEqual(scrapes(monitor, labels, elsewhere), 0)

    def test_every_pool_is_the_backend_of_a_route_beside_it(self):
        self.assertEqual(unmatched(list(manifests())), set())

    def test_a_pool_without_its_route_is_found_out(self):
        documents = list(manifests())
        for file in {name for name, document in documents if document["kind"] == "InferencePool"}:
            moved = [("elsewhere" if (name, it["kind"]) == (file, "HTTPRoute") else name, it) for name, it in documents]
            self.assertEqual({name for name, *_ in unmatched(moved)}, {file, "elsewhere"})
            for field in ("group", "kind", "name"):
                spoiled = copy.deepcopy(documents)
                (backend,) = [it for name, it in backends(spoiled) if name == file]
                backend[field] = "another"
                with self.subTest(file=file, field=field):
                    self.assertNotEqual(unmatched(spoiled), set())

    def test_gateways_old_and_new_get_the_same_route(self):
        documents = copy.deepcopy(list(manifests()))
        for _, backend in backends(documents):
            del backend["group"]
        new, old = (document for _, document in documents if document["kind"] == "HTTPRoute")
        self.assertEqual(old, new)

    def test_gateways_learn_that_the_metrics_bear_vllms_names(self):
        for labels in (self.pod["metadata"]["labels"], manifest("InferenceService")["spec"]["predictor"]["labels"]):
            self.assertEqual(labels["llm-d.ai/engine-type"], "vllm")
            self.assertEqual(labels["inference.networking.k8s.io/engine-type"], "vllm")

    def test_every_port_is_the_one_it_listens_on(self):
        for serving, _ in self.serving:
            (port,) = serving["ports"]
            self.assertEqual(str(port["containerPort"]), option(serving["args"], "port"))
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                self.assertIn(serving[probe]["httpGet"]["port"], (port["name"], port["containerPort"]))
        (port,) = container(self.deployment)["ports"]
        (service,) = manifest("Service")["spec"]["ports"]
        self.assertEqual(service["targetPort"], port["name"])
        (pool,) = manifest("InferencePool", V1)["spec"]["targetPorts"]
        alpha = manifest("InferencePool", ALPHA)["spec"]["targetPortNumber"]
        self.assertEqual((pool["number"], alpha), (port["containerPort"],) * 2)
        annotations = manifest("ServingRuntime")["spec"]["annotations"]
        self.assertEqual(annotations["prometheus.kserve.io/port"], option(self.serving[1][0]["args"], "port"))

    def test_every_reference_names_something(self):
        secret = manifest("Secret")["metadata"]["name"]
        for serving, _ in self.serving:
            (source,) = serving["envFrom"]
            self.assertEqual(source["secretRef"], {"name": secret, "optional": True})
        target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
        self.assertEqual((target["kind"], target["name"]), ("Deployment", self.deployment["metadata"]["name"]))
        pool = manifest("InferencePool", V1)["metadata"]["name"]
        for name, document in manifests():
            if "poolRef" in document["spec" if "spec" in document else "stringData"]:
                self.assertEqual(document["spec"]["poolRef"]["name"], pool, name)
        model = manifest("InferenceService")["spec"]["predictor"]["model"]
        runtime = manifest("ServingRuntime")
        formats = [it["name"] for it in runtime["spec"]["supportedModelFormats"]]
        self.assertEqual(model["runtime"], runtime["metadata"]["name"])
        self.assertIn(model["modelFormat"]["name"], formats)

    def test_mounts_and_adapters(self):
        mounts = {mount["name"]: mount["mountPath"] for mount in container(self.deployment)["volumeMounts"]}
        self.assertEqual(set(mounts), {volume["name"] for volume in self.pod["spec"]["volumes"]})
        self.assertEqual(mounts["adapters"], option(container(self.deployment)["args"], "adapter-root"))

    def test_running_requests_may_finish(self):
        service = manifest("InferenceService")["spec"]["predictor"]
        for (serving, _), pod in zip(self.serving, (self.pod["spec"], service), strict=True):
            sleep = serving["lifecycle"]["preStop"]["sleep"]["seconds"]
            drain = int(option(serving["args"], "drain-seconds"))
            self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], sleep + drain + 5)
            # Out of the load balancers before the listener closes.
            probe = serving["readinessProbe"]
            self.assertLessEqual(probe["periodSeconds"] * probe["failureThreshold"], sleep)

    def test_memory_holds_caches_and_adapters(self):
        for serving, _ in self.serving:
            reserved = int(option(serving["args"], "kv-cache-mib")) + int(option(serving["args"], "adapter-budget-mib"))
            limit = mebibytes(serving["resources"]["limits"]["memory"])
            self.assertGreaterEqual(limit, reserved + 512)
            self.assertEqual(limit, mebibytes(serving["resources"]["requests"]["memory"]))

    def test_nothing_runs_as_root_or_writes_its_image(self):
        for serving, pod in self.serving:
            rules = {**(pod or {}).get("securityContext", {}), **serving["securityContext"]}
            self.assertIs(rules["runAsNonRoot"], True)
            self.assertIs(rules["readOnlyRootFilesystem"], True)
            self.assertIs(rules["allowPrivilegeEscalation"], False)
            self.assertEqual(rules["capabilities"], {"drop": ["ALL"]})
            self.assertEqual(dockerfile("USER"), f"{rules['runAsUser']}:10001")

    def test_the_autoscaler_reads_what_the_adapter_makes(self):
        (metric,) = manifest("HorizontalPodAutoscaler")["spec"]["metrics"]
        (rule,) = load("kubernetes/prometheus-adapter.values.yaml")["rules"]["custom"]
        self.assertNotIn("name", rule, "the rule renames its series")
        self.assertEqual(rule["seriesQuery"].partition("{")[0], metric["pods"]["metric"]["name"])


class Containers(unittest.TestCase):
    def test_every_port_is_the_images(self):
        port = dockerfile("EXPOSE")
        self.assertEqual(port, "8000")
        self.assertIn(f"/dev/tcp/127.0.0.1/{port} ", dockerfile("HEALTHCHECK"))
        services = load("compose.yml")["services"]
        self.assertEqual(services["callsmith"]["ports"], [f"127.0.0.1:{port}:{port}"])
        (scrape,) = load("prometheus.yml")["scrape_configs"]
        self.assertEqual(scrape["static_configs"], [{"targets": [f"callsmith:{port}"]}])

    def test_everything_mounted_exists(self):
        for service in load("compose.yml")["services"].values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("./"):
                    self.assertTrue((DEPLOY / source).exists(), source)

    def test_stopping_waits_for_running_requests(self):
        drain = int(re.search(r"--drain-seconds.*?\[default: (\d+)\]", self.help(), re.S)[1])
        grace = load("compose.yml")["services"]["callsmith"]["stop_grace_period"]
        self.assertGreaterEqual(int(grace.removesuffix("s")), drain + 5)

    def test_the_environment_is_read(self):
        read = set(re.findall(r"\[env: (\w+)", self.help()))
        self.assertLessEqual(set(manifest("Secret")["stringData"]), read)
        self.assertLessEqual(set(load("compose.yml")["services"]["callsmith"]["environment"]), read)

    def test_the_gpu_overlay_changes_what_there_is(self):
        overlay = load("compose.cuda.yml")["services"]["callsmith"]
        image = (DEPLOY / "Dockerfile").read_text()
        for name in overlay["build"]["args"]:
            self.assertRegex(image, rf"(?m)^ARG {name}=")
        for stage in ("build", "run"):
            self.assertRegex(image, rf"(?m)^FROM \S+ AS {stage}-{overlay['build']['args']['VARIANT']}$")

    def test_grafana_finds_its_files(self):
        grafana = load("compose.yml")["services"]["grafana"]
        mounts = dict(reversed(volume.split(":")[:2]) for volume in grafana["volumes"])
        (provider,) = load("grafana/provisioning/dashboards/callsmith.yml")["providers"]
        folder = DEPLOY / mounts[provider["options"]["path"]]
        home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        self.assertTrue((folder / home.removeprefix(provider["options"]["path"] + "/")).is_file())
        (source,) = load("grafana/provisioning/datasources/prometheus.yml")["datasources"]
        host, _, port = source["url"].removeprefix("http://").partition(":")
        self.assertIn(f"127.0.0.1:{port}:{port}", load("compose.yml")["services"][host]["ports"])
        self.assertEqual(source["jsonData"]["timeInterval"], load("prometheus.yml")["global"]["scrape_interval"])

    def help(self):
        code, text = ran(BINARY, "serve", "--help")
        self.assertEqual(code, 0)
        return text
