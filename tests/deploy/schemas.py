"""Where the schema of a Kubernetes object comes from, and what an object breaks of it.

* Kubernetes' own kinds: its OpenAPI schemas, strict, as the package kubernetes-validate carries them.
* KServe's: the models that its Python package was generated with, read as JSON Schema.
* The inference extension's and the MPI operator's: inference_extension.yaml and mpijob.yaml, written by hand.
* Prometheus operator and Gateway API: their TypeScript types from npm, checked by the compiler.

Knows no object of deploy/.
"""

import ast
import json
import os
import re
import site
import tempfile
from functools import cache
from pathlib import Path

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from support import ran, tool

# The oldest with `preStop: sleep` switched on, and the newest that the package knows.
KUBERNETES = "1.30", "1.37"
TYPESCRIPT = {
    "PodMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor",
    "PrometheusRule": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
    "HTTPRoute": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute",
}
# Kubernetes' types by the names that KServe's generator gave them.
NAMED = "io.k8s.api.core.v1.", "io.k8s.apimachinery.pkg.apis.meta.v1."
SIMPLE = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "object": "object"}


def problems(document):
    """What the object breaks of its kind's schema; kinds in TYPESCRIPT are for `type_problems`."""
    group = document["apiVersion"].rpartition("/")[0]
    if group == "serving.kserve.io":
        return broken(document, kserve_type(f"V1{document['apiVersion'].rpartition('v1')[2]}{document['kind']}"))
    if group.startswith("inference.networking."):
        return handwritten_problems(document, "inference_extension.yaml")
    if group == "kubeflow.org":
        return handwritten_problems(document, "mpijob.yaml")
    return [text for version in KUBERNETES for text in kubernetes_problems(document, version)]


def kubernetes_problems(document, version):
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{version}: {error.json_path}: {error.message}"]
    return []


def broken(document, schema):
    registry = Resource.from_contents(kubernetes_definitions()) @ Registry()
    found = Draft202012Validator(schema, registry=registry).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found]


@cache
def kubernetes_definitions():
    package = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    return json.loads((package / f"v{KUBERNETES[-1]}.0-local-strict" / "_definitions.json").read_text())


def kubernetes_type(name):
    return {"$ref": f"{kubernetes_definitions()['$id']}#/$defs/{name}"}


def handwritten_problems(document, file):
    schemas = yaml.safe_load((Path(__file__).parent / file).read_text())
    spec = schemas.get(f"{document['apiVersion']} {document['kind']}")
    if spec is None:
        return [f"no schema for {document['apiVersion']} {document['kind']}"]
    whole = {
        "$defs": {**schemas["$defs"], "podTemplate": kubernetes_type(f"{NAMED[0]}PodTemplateSpec")},
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {},
            "kind": {},
            "metadata": kubernetes_type(f"{NAMED[1]}ObjectMeta"),
            "spec": spec,
        },
    }
    return broken(document, whole)


@cache
def kserve_models():
    """{class: (types of its attributes, their names in JSON, the required ones)} of KServe's generated models."""
    (folder,) = [Path(place) / "kserve/models" for place in site.getsitepackages() if (Path(place) / "kserve").exists()]
    models = {}
    for path in folder.glob("v1*.py"):
        source = path.read_text()
        (model,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
        tables = {node.targets[0].id: node.value for node in model.body if isinstance(node, ast.Assign)}
        types, names = (ast.literal_eval(tables[table]) for table in ("openapi_types", "attribute_map"))
        # Their setters are where the generator says what may not be absent.
        required = re.findall(r"client_side_validation and (\w+) is None", source)
        models[model.name] = types, names, required
    return models


@cache
def kserve_type(name):
    """The JSON Schema of a type as KServe's generator writes it, such as `list[V1Container]`."""
    if name in SIMPLE:
        return {"type": SIMPLE[name]}
    if inner := re.fullmatch(r"(list\[|dict\(str, )(.+)[\])]", name):
        member = kserve_type(inner[2])
        listed, mapped = {"type": "array", "items": member}, {"type": "object", "additionalProperties": member}
        return listed if inner[1] == "list[" else mapped
    if name in kserve_models():
        types, names, required = kserve_models()[name]
        properties = {names[attribute]: kserve_type(kind) for attribute, kind in types.items()}
        needed = [names[attribute] for attribute in required]
        return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}
    for package in NAMED:
        if (full := package + name.removeprefix("V1")) in kubernetes_definitions()["$defs"]:
            return kubernetes_type(full)
    # Nothing is known of it, so no object may use it.
    return False


def type_problems(documents):
    """For each object (of a kind in TYPESCRIPT) what the compiler says of it."""
    typed = [(it, f'import("{TYPESCRIPT[it["kind"]]}").I{it["kind"]}') for it in documents]
    lines = [f"const d{at}: {kind} = {json.dumps(document)};" for at, (document, kind) in enumerate(typed)]
    modules = Path(os.environ["CALLSMITH_NODE_MODULES"])
    options = "--noEmit --strict --skipLibCheck --module nodenext --moduleResolution nodenext".split()
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "node_modules").symlink_to(modules)
        (Path(directory) / "documents.ts").write_text("\n".join(lines))
        compiler = modules / "typescript/bin/tsc"
        node = tool("node")
        if not compiler.exists():
            tool("tsc (npm's type definitions)")
        code, said = ran(node, str(compiler), *options, "documents.ts", cwd=directory)
    found = re.findall(r"^documents\.ts\((\d+),\d+\): error (.*)", said, re.M)
    assert (code == 0) == (not found), said
    return [[text for line, text in found if int(line) == at + 1] for at in range(len(documents))]
