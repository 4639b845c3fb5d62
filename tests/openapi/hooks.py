"""What schemathesis is told about callsmith: which names exist, what generated requests lack in sense, and which
answers are wrong although the document has them. Loaded by schemathesis; tells check.py in a file what it has seen.

Knows the operations by their ids, and leaves the shapes of answers to schemathesis.
"""

import atexit
import json
import os
import re
import zlib
from collections import Counter
from pathlib import Path

import schemathesis

import sense
from document import Body, operations

DOCUMENT = json.loads(Path(os.environ["CALLSMITH_DOCUMENT"]).read_text())
BODIES = {f"{method.upper()} {path}": Body(DOCUMENT, operation) for path, method, operation in operations(DOCUMENT)}
# Adapters that check.py has the server load; each operation that takes one away has its own.
NAMES = {
    "deleteModel": "a", "tritonUnload": "b", "tritonUnloadIn": "c", "unloadAdapter": "d",
    "pinAdapter": "crm", "loadAdapter": "crm", "tritonLoad": "crm", "tritonLoadIn": "crm",
}  # fmt: skip
# Why a request that fits the document and makes sense may be refused: names that are random, adapters that are there or
# not, and keys where check.py asks for them.
REFUSALS = {
    "model_not_found", "response_not_found", "lora_adapter_not_found", "lora_adapter_already_loaded",
    "lora_generation_mismatch", "invalid_api_key", "insufficient_permissions",
}  # fmt: skip
# Triton's errors have no code.
REFUSAL_STATUSES = {401, 403, 404}
# An array without the text is refused for the text.
ALSO_NAMED = {"inputs": "text_input"}
# For check.py.
seen = {"requests": 0, "statuses": {}}
# Responses that can be asked for.
kept = []


@atexit.register
def tell():
    Path(os.environ["CALLSMITH_SEEN"]).write_text(json.dumps(seen))


def operation_id(case):
    return case.operation.definition.raw["operationId"]


def phase(case):
    return case.meta.phase.name.value


def is_negative(case):
    return case.meta.generation.mode.is_negative


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.method.lower() != case.operation.method:
        return
    name_what_exists(case)
    if phase(case) == "examples":
        return
    if not is_negative(case):
        mend(case)
    elif isinstance(case.body, dict) and phase(case) == "coverage":
        case.body, wrong = BODIES[case.operation.label].isolated(case.body)
        if wrong:
            # Of any number but the right one the whole body is refused.
            case.headers.pop(sense.HEADER_LENGTH, None)
    if isinstance(case.body, dict):
        sense.cheap(case.body)


def mend(case):
    """Gives sense to a request that fits the document."""
    case.headers.pop(sense.HEADER_LENGTH, None)
    if case.media_type == "application/octet-stream":
        case.body, case.headers[sense.HEADER_LENGTH] = sense.binary_inference()
    elif isinstance(case.body, dict):
        case.body = sense.whole(case.body)
        sense.sensible(case.body)
    if phase(case) == "stateful" and operation_id(case) == "createResponse":
        # What follows asks for the response.
        case.body["store"] = True


def name_what_exists(case):
    """Names what there is, but for one request of four: what is said of names that are not there holds too."""
    operation = operation_id(case)
    names = {"id": NAMES.get(operation, sense.MODEL), "version": "1"}
    if operation in ("getResponse", "listInputItems", "deleteResponse"):
        # In the stateful phase they follow the request that has made them.
        names = {"id": kept[-1]} if kept and phase(case) != "stateful" else {}
        if not is_negative(case) and case.query:
            # Which items there are is known to their list alone.
            case.query.pop("after", None)
    for parameter, value in case.path_parameters.items():
        # The base is no adapter: it cannot be unloaded.
        if parameter in names and (value == sense.MODEL or zlib.crc32(str(value).encode()) % 4):
            case.path_parameters[parameter] = names[parameter]
    if not isinstance(case.body, dict):
        return
    if isinstance(case.body.get("model"), str):
        case.body["model"] = sense.MODEL
    if "lora_name" in case.body and not is_negative(case):
        case.body |= {"lora_name": names["id"], **({"lora_path": names["id"]} if "lora_path" in case.body else {})}


@schemathesis.hook
def after_call(context, case, response):
    seen["requests"] += 1
    statuses = seen["statuses"].setdefault(case.operation.label, Counter())
    statuses[response.status_code] += 1
    if operation_id(case) == "createResponse" and response.status_code == 200 and case.body.get("store") is not False:
        kept.extend(re.findall(r'"id":"(resp_\w+)"', response.text)[:1])


def error_of(response):
    """Code (if it has one), field and message of an error in either shape."""
    error = response.json()["error"]
    return (None, error, error) if isinstance(error, str) else (error["code"], error["param"] or "", error["message"])


@schemathesis.check
def what_fits_is_answered(ctx, response, case):
    """A request that fits the document and makes sense is not refused."""
    if is_negative(case) or response.status_code < 300:
        return
    if operation_id(case).startswith("tritonModelReady") and response.status_code == 400:
        # What is not there is not ready.
        return
    code, _, message = error_of(response)
    known = code in REFUSALS or (code is None and response.status_code in REFUSAL_STATUSES)
    assert known, f"fits the document and is refused: {response.status_code} {code} {message}"


@schemathesis.check
def refusals_name_the_member(ctx, response, case):
    """Where one member of a body is wrong, it is the one that the refusal names."""
    if not is_negative(case) or phase(case) != "coverage" or response.status_code != 400:
        return
    wrong = BODIES[case.operation.label].isolated(case.body)[1] if isinstance(case.body, dict) else []
    if wrong:
        _, named, message = error_of(response)
        told = any(member in named or ALSO_NAMED.get(member, member) in named for member in wrong)
        assert told, f"{', '.join(wrong)} is wrong; refused is: {message}"
