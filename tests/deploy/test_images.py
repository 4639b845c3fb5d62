"""The Dockerfile and the compose files, as a linter and the compose schema see them.

There is no container engine here: nothing is built, and whether an image's tag exists is not known.
"""

import copy
import re
import sys
import tempfile
import unittest
from pathlib import Path

import yaml

from support import DEPLOY, load, ran, tool


def compose_problems(path):
    return ran(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path))


def missing_stages(text, variant):
    """Stages that the Dockerfile names and does not have."""
    text = text.replace("${VARIANT}", variant)
    named = re.findall(r"--from=(\S+)", text) + re.findall(r"(?m)^FROM ((?:build|run)-\S+)", text)
    return set(named) - set(re.findall(r"(?m)^FROM \S+ AS (\S+)$", text))


class Dockerfile(unittest.TestCase):
    def linted(self, text):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "Dockerfile"
            path.write_text(text)
            return ran(tool("hadolint"), "--no-color", str(path))

    def test_the_linter_finds_nothing(self):
        code, said = self.linted((DEPLOY / "Dockerfile").read_text())
        self.assertEqual((code, said), (0, ""))

    def test_the_linter_finds_mistakes(self):
        text = (DEPLOY / "Dockerfile").read_text()
        mistakes = ("USER 10001:10001", "USER root"), ("COPY --from=build ", "COPPY "), (":trixie-slim AS", " AS")
        for good, bad in mistakes:
            with self.subTest(bad):
                self.assertIn(good, text)
                code, said = self.linted(text.replace(good, bad))
                self.assertNotEqual(code, 0, said)

    def test_every_stage_that_a_variant_needs_is_there(self):
        text = (DEPLOY / "Dockerfile").read_text()
        for variant in ("cpu", "cuda", "mpi"):
            self.assertEqual(missing_stages(text, variant), set())
        self.assertEqual(missing_stages(text.replace("AS run-cuda", "AS run-cudda"), "cuda"), {"run-cuda"})


class Compose(unittest.TestCase):
    def test_the_files_fit_the_schema(self):
        for name in ("compose.yml", "compose.cuda.yml"):
            with self.subTest(name):
                code, said = compose_problems(DEPLOY / name)
                self.assertEqual(code, 0, said)

    def test_the_schema_refuses_mistakes(self):
        for mistake in ({"portz": []}, {"volumes": "everywhere"}, {"stop_grace_period": []}):
            spoiled = copy.deepcopy(load("compose.yml"))
            spoiled["services"]["callsmith"].update(mistake)
            with self.subTest(**mistake), tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "compose.yml"
                path.write_text(yaml.safe_dump(spoiled))
                self.assertNotEqual(compose_problems(path)[0], 0)
