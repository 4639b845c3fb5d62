"""The OpenAPI document as the checks need it: read, made stricter where it describes answers, and asked about fields.

Knows JSON Schema as far as this document uses it, and no request.
"""

import json
import re
from copy import deepcopy
from pathlib import Path

import jsonschema_rs

PATH = Path(__file__).parents[2] / "src/api/openapi.json"
SCHEMAS = "#/components/schemas/"
# Members that are null do not count for these bounds, which JSON Schema cannot say: the objects full of nulls with
# which schemathesis passes a bound are rightly accepted.
UNTESTED_BOUNDS = [("Sampling", "logit_bias", "maxProperties"), ("Ignored", "metadata", "maxProperties")]


def read():
    return json.loads(PATH.read_text())


def operations(document):
    """Every (path, method, operation)."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method, operation


def prepared(document):
    """The document to test with: answers may have no member that it does not name. What is published stays open, so
    that members can be added without breaking clients."""
    document = deepcopy(document)
    schemas = document["components"]["schemas"]
    for name, field, bound in UNTESTED_BOUNDS:
        del schemas[name]["properties"][field][bound]
    closed = {}
    holders = [operation["responses"] for _, _, operation in operations(document)]
    for holder in [*holders, document["components"]["responses"]]:
        holder.update(_closed(holder, schemas, closed))
    schemas.update(closed)
    return document


def _closed(value, schemas, closed):
    """A copy of a part of the document whose schemas are closed; `closed` collects those that it refers to, which the
    requests may share and need open."""
    if isinstance(value, list):
        return [_closed(item, schemas, closed) for item in value]
    if not isinstance(value, dict):
        return value
    copy = {key: _closed(item, schemas, closed) for key, item in value.items()}
    reference = copy.get("$ref", "")
    if isinstance(reference, str) and reference.startswith(SCHEMAS):
        name = reference.removeprefix(SCHEMAS)
        if f"{name}Closed" not in closed:
            closed[f"{name}Closed"] = None
            closed[f"{name}Closed"] = _closed(schemas[name], schemas, closed)
        copy["$ref"] += "Closed"
    # Every event of a stream has an `event` or an `id` too; what its data may hold is said in a schema of its own.
    data = copy.get("properties", {}).get("data", {})
    is_event = "contentSchema" in data or data == {"const": "[DONE]"}
    if "properties" in copy and "type" in copy and not is_event:
        copy.setdefault("additionalProperties", False)
    return copy


class Body:
    """What the document says of the JSON body of an operation."""

    def __init__(self, document, operation):
        self.document, self._validators = document, {}
        body = self._resolve(operation.get("requestBody", {}))
        media = body.get("content", {}).get("application/json", {})
        self.schema, self.example = media.get("schema", {}), media.get("example", {})

    def isolated(self, value):
        """A body that breaks the document nowhere but where this one does: its other members are the example's. And the
        names of the members that break it, those of `parameters` included."""
        return self._isolated(self.schema, value, self.example)

    def _isolated(self, schema, value, example):
        fields, patterns = self._fields(schema), self._patterns(schema)
        wrong = {name: member for name, member in value.items() if not self._fits(fields, patterns, name, member)}
        names = list(wrong)
        if isinstance(wrong.get("parameters"), dict):
            inner = fields["parameters"], wrong["parameters"], example.get("parameters", {})
            wrong["parameters"], more = self._isolated(*inner)
            names += more
        # Without a wrong member one is missing, or the whole is wrong.
        return ({**example, **wrong} if wrong else value), names

    def _fits(self, fields, patterns, name, member):
        schemas = [schema for pattern, schema in patterns.items() if re.search(pattern, name)]
        return all(self._validator(schema).is_valid(member) for schema in [fields.get(name, {}), *schemas])

    def _resolve(self, value):
        while "$ref" in value:
            found = self.document
            for key in value["$ref"].removeprefix("#/").split("/"):
                found = found[key]
            value = found
        return value

    def _fields(self, schema):
        """The members that an object's schema names, those of `allOf` included."""
        return self._gathered(schema, "properties")

    def _patterns(self, schema):
        return self._gathered(schema, "patternProperties")

    def _gathered(self, schema, keyword):
        schema = self._resolve(schema)
        found = dict(schema.get(keyword, {}))
        for part in schema.get("allOf", []):
            found |= self._gathered(part, keyword)
        return found

    def _validator(self, schema):
        text = json.dumps(schema)
        if text not in self._validators:
            whole = {"allOf": [schema], "components": self.document["components"]}
            self._validators[text] = jsonschema_rs.Draft202012Validator(whole)
        return self._validators[text]
