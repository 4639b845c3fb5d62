"""Every Kubernetes object of deploy/ fits the schema of its kind, and every schema refuses what does not.

Does not look at what the objects say to each other: test_agreement.py.
"""

import copy
import re
import tempfile
import unittest

import yaml

from schemas import TYPESCRIPT, problems, type_problems
from support import DEPLOY, ROOT, container, load, manifest, manifests, ran, tool


def spoiled(document):
    """Copies of the object with a mistake each: an unknown field, a wrong type, an unknown field of the metadata."""
    body = "spec" if "spec" in document else "stringData"
    unknown, mistyped, metadata = (copy.deepcopy(document) for _ in range(3))
    if body == "spec":
        unknown["spec"]["sepc"] = 1
    else:
        unknown["sepc"] = 1
    mistyped[body] = "a string"
    metadata["metadata"]["labells"] = {}
    return [unknown, mistyped, metadata]


def applied_by_the_readme():
    """The objects that the README's commands hand to `kubectl apply -f -`."""
    commands = re.findall(r"(?m)^(.*) \| kubectl apply -f -$", (DEPLOY / "README.md").read_text())
    tool("kubectl")
    for command in commands:
        code, said = ran("bash", "-euo", "pipefail", "-c", command, cwd=ROOT)
        assert code == 0, said
        yield yaml.safe_load(said)


class Schemas(unittest.TestCase):
    def test_every_object_fits_its_schema(self):
        for name, document in manifests():
            if document["kind"] in TYPESCRIPT:
                continue
            with self.subTest(file=name, kind=document["kind"]):
                self.assertEqual(problems(document), [])

    def test_every_schema_refuses_mistakes(self):
        for name, document in manifests():
            if document["kind"] in TYPESCRIPT:
                continue
            for mistake in spoiled(document):
                with self.subTest(file=name, kind=document["kind"]):
                    self.assertNotEqual(problems(mistake), [])

    def test_typed_objects_fit_their_types_and_mistakes_do_not(self):
        rules, _ = applied_by_the_readme()
        self.assertEqual(rules["spec"], load("alerts.yml"))
        typed = [document for _, document in manifests() if document["kind"] in TYPESCRIPT] + [rules]
        self.assertEqual({document["kind"] for document in typed}, set(TYPESCRIPT))
        mistakes = [mistake for document in typed for mistake in spoiled(document)]
        said = type_problems(typed + mistakes)
        self.assertEqual(said[: len(typed)], [[] for _ in typed])
        for mistake, words in zip(mistakes, said[len(typed) :], strict=True):
            self.assertNotEqual(words, [], mistake)

    def test_the_dashboards_object_holds_the_dashboard(self):
        _, dashboard = applied_by_the_readme()
        self.assertEqual(problems(dashboard), [])
        self.assertEqual(dashboard["metadata"]["labels"], {"grafana_dashboard": "1"})
        board = (DEPLOY / "grafana/dashboards/callsmith.json").read_text()
        self.assertEqual(dashboard["data"], {"callsmith.json": board})

    def test_the_gpu_patch_fits_the_deployment(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(manifest("Deployment"), file)
            file.flush()
            patch = f"--patch-file={DEPLOY / 'kubernetes/gpu.patch.yaml'}"
            code, said = ran(tool("kubectl"), "patch", "--local", "-f", file.name, patch, "-o", "yaml")
        self.assertEqual(code, 0, said)
        patched = yaml.safe_load(said)
        self.assertEqual(problems(patched), [])
        only, before = container(patched), container(manifest("Deployment"))
        self.assertEqual((only["image"], only["resources"]["limits"]["nvidia.com/gpu"]), ("callsmith:cuda", "1"))
        self.assertEqual(only["args"], before["args"])

    def test_every_kind_that_was_asked_for_is_there(self):
        kinds = {document["kind"] for _, document in manifests()}
        wanted = "Deployment Service Secret HorizontalPodAutoscaler PodMonitor InferencePool InferenceModel"
        wanted += " InferenceObjective HTTPRoute ServingRuntime InferenceService MPIJob"
        self.assertEqual(kinds, set(wanted.split()))
