"""Holds a running server to src/api/openapi.json: check.py BINARY

The document is valid; every operation answers requests that fit it, refuses requests that break it, and says nothing
that it does not describe; documents that are wrong are found to be. Knows no shape of the API: that is the document's.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import openapi_spec_validator

from document import operations, prepared, read

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "shared"))
from zero_adapter import write_adapter  # noqa: E402

SEED = 20261122
LOADED, IDLE = ["a", "b", "c", "d", "crm"], "idle"
NEGATIVE = ["--mode", "negative", "--phases", "coverage,fuzzing", "--max-examples", "12"]
KEYS = ["--api-key", "user", "--admin-key", "root", "--protect-metrics"]
POSITIVE = ["--mode", "positive", "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "8"]
# Ways in which a document can be wrong, each of an operation of its own, and the pass that must notice.
WRONG = {
    "positive": {
        "a type in an answer": ("listAdapters", ("AdapterList", "properties", "used_bytes"), {"type": "string"}),
        "a member of an answer left out": ("listModels", ("Model", "properties", "generation"), None),
        "a choice of an answer left out": ("getReadiness", ("Status", "properties", "status", "enum"), ["unavailable"]),
        "a choice that there is not": ("tokenize", ("ToolMode", "enum"), ["none", "auto", "required", "always"]),
        "a bound that is too wide": ("createCompletion", ("Sampling", "properties", "temperature", "maximum"), 3),
    },
    "negative": {
        "a bound that is too narrow": ("createCompletion", ("Sampling", "properties", "temperature", "maximum"), 1),
        "a member that is not needed": ("detokenize", ("DetokenizeRequest", "required"), ["tokens", "model"]),
        "a type that is too narrow": ("pinAdapter", ("PinAdapterRequest", "properties", "pinned", "type"), "boolean"),
    },
}


class Schemathesis:
    """Runs it against one server; sums what it sent and what it found."""

    def __init__(self, address, scratch):
        self.address, self.scratch = address, scratch
        self.requests = 0

    def run(self, document, options):
        """Its report, what its hooks have seen, and what it printed."""
        described, seen, report = (self.scratch / name for name in ("document.json", "seen.json", "report.json"))
        described.write_text(json.dumps(document))
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
        command += [str(described), "--url", self.address, "--seed", str(SEED), "--no-color", *options]
        command += ["--report", "json", "--report-json-path", str(report)]
        hooks = {"SCHEMATHESIS_HOOKS": "hooks", "CALLSMITH_DOCUMENT": str(described), "CALLSMITH_SEEN": str(seen)}
        environment = {**os.environ, **hooks, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
        for old in (seen, report):
            old.unlink(missing_ok=True)
        done = subprocess.run(command, cwd=self.scratch, env=environment, text=True, capture_output=True)
        if not report.exists():
            raise SystemExit(f"schemathesis did not run:\n{done.stdout}{done.stderr}")
        seen = json.loads(seen.read_text())
        self.requests += seen["requests"]
        return json.loads(report.read_text()), seen, done.stdout


class Count:
    """Prints outcomes and counts them."""

    passed = failed = ignored = 0

    def check(self, good, name, why=""):
        self.passed += bool(good)
        self.failed += not good
        print(f"{'ok    ' if good else 'FAILED'} {name}{'' if good else f': {why}'}", flush=True)

    def ignore(self, name, why):
        self.ignored += 1
        print(f"NOT CHECKED: {name} ({why})", flush=True)


@contextmanager
def server(binary, scratch, *options):
    """A server with a few adapters, on a free port."""
    root = scratch / "adapters"
    command = [binary, "serve", "--port", "0", "--max-batch", "4", "--adapter-root", str(root), *options]
    command += [f"--adapter={name}={root / name}" for name in LOADED]
    log = scratch / "server.log"
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True,
                                   env={"CALLSMITH_LOG": "warn", **os.environ})  # fmt: skip
    try:
        line = next((line for line in process.stdout if line.startswith("listening on ")), None)
        if not line:
            raise SystemExit(f"{binary} did not start:\n{log.read_text()}")
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
    if code != 0:
        raise SystemExit(f"exit code {code} after SIGTERM:\n{log.read_text()[-4000:]}")


def get(address, path):
    try:
        with urllib.request.urlopen(address + path, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def without_unserved(document, address, count):
    """A copy; the pages and the document itself are left out for a server that does not have them."""
    document = deepcopy(document)
    for path in ("/", "/docs", "/openapi.json"):
        if get(address, path)[0] == 404:
            del document["paths"][path]
            count.ignore(f"GET {path}", "this server does not have it")
    return document


def replace(document, place, value):
    """Puts something else at a place of the document's schemas, or nothing."""
    *path, last = place
    holder = document["components"]["schemas"]
    for key in path:
        holder = holder[key]
    if value is None:
        del holder[last]
    else:
        holder[last] = value


def check_pass(name, tool, document, options, count):
    """One pass over every operation; each counts."""
    began = time.monotonic()
    report, seen, output = tool.run(document, options)
    wrong = {operation for one in report["failures"] for operation in one["operations"]}
    labels = {f"{method.upper()} {path}" for path, method, _ in operations(document)}
    for label in sorted(labels):
        count.check(label not in wrong, f"{name} {label}", "see below")
    whole = report["complete"] and not report["errors"] and wrong <= labels
    count.check(whole, f"{name} run", f"{report['stop_reason']}, {report['errors']}, {sorted(wrong - labels)}")
    if report["exit_code"] != 0:
        print(output)
    print(f"{name}: {seen['requests']} requests in {time.monotonic() - began:.0f} s", flush=True)
    return labels, seen["statuses"]


def check_success(labels, statuses, count):
    """Answers of success are described only if there are some."""
    for label in sorted(labels):
        good = any(status.startswith("2") for status in statuses.get(label, {}))
        count.check(good, f"success {label}", f"only {statuses.get(label)}")


def check_keys(document, tool, count):
    """With keys, each operation is closed to whoever lacks the one that the document names, and says so as it says."""
    closed = deepcopy(document)
    needs = {}
    for path, method, operation in operations(closed):
        operation["security"] = [needed for needed in operation["security"] if needed]
        needs[f"{method.upper()} {path}"] = next((name for needed in operation["security"] for name in needed), None)
    # schemathesis' own check of keys knows no two kinds of them.
    options = ["--mode", "positive", "--phases", "fuzzing", "--max-examples", "1", "--exclude-checks=ignored_auth"]
    for key, refusal, closed_to in (("", "401", {"api_key", "admin_key"}), ("user", "403", {"admin_key"})):
        report, seen, output = tool.run(prepared(closed), [*options, "--header", f"Authorization: Bearer {key}"])
        refused = {label for label, statuses in seen["statuses"].items() if set(statuses) == {refusal}}
        right = {label for label, name in needs.items() if name in closed_to}
        good = report["exit_code"] == 0 and refused == right
        count.check(good, f"keys: {refusal} where it belongs", f"{sorted(refused ^ right)}\n{output}")


def check_wrong_documents(document, tool, count):
    """What a document says wrongly is noticed."""
    labels = {one["operationId"]: f"{method.upper()} {path}" for path, method, one in operations(document)}
    for mode, defects in WRONG.items():
        broken = deepcopy(document)
        for _, place, value in defects.values():
            replace(broken, place, value)
        chosen = [f"--include-operation-id={operation}" for operation, _, _ in defects.values()]
        report, _, _ = tool.run(prepared(broken), ["--mode", mode, "--phases", "coverage", *chosen])
        noticed = {operation for one in report["failures"] for operation in one["operations"]}
        for what, (operation, _, _) in defects.items():
            count.check(labels[operation] in noticed, f"noticed: {what}", "it was not")


def check_server(address, count):
    """The server is whole after all that, and knows of no fault of its own."""
    count.check(get(address, "/readyz")[0] == 200, "ready afterwards")
    metrics = get(address, "/metrics")[1]
    violations = [line for line in metrics.splitlines() if line.startswith("callsmith_constraint_violations_total ")]
    count.check(violations and float(violations[0].split()[1]) == 0, "no constraint violated", violations)
    faults = [line for line in metrics.splitlines() if '"internal_error"' in line or '"model_output_invalid"' in line]
    count.check(not any(float(line.split()[-1]) for line in faults), "no internal error", faults)


def check_open(binary, scratch, document, count):
    """Everything that can be checked of a server without keys; returns how many requests it took."""
    with server(binary, scratch) as address:
        tool = Schemathesis(address, scratch)
        document = without_unserved(document, address, count)
        # Before adapters are gone.
        labels, statuses = check_pass("positive", tool, prepared(document), POSITIVE, count)
        check_success(labels, statuses, count)
        check_pass("negative", tool, prepared(document), NEGATIVE, count)
        check_server(address, count)
        check_wrong_documents(document, tool, count)
        return tool.requests


def check_closed(binary, scratch, document, count):
    """The same of a server with keys."""
    with server(binary, scratch, *KEYS) as address:
        tool = Schemathesis(address, scratch)
        check_keys(without_unserved(document, address, Count()), tool, count)
        return tool.requests


def main(binary):
    count, document = Count(), read()
    try:
        openapi_spec_validator.validate(document)
        count.check(True, "the document is valid OpenAPI 3.1")
    except openapi_spec_validator.OpenAPISpecValidatorError as error:
        count.check(False, "the document is valid OpenAPI 3.1", error)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        for name in [*LOADED, IDLE]:
            write_adapter(scratch / "adapters" / name)
        requests = check_open(binary, scratch, document, count) + check_closed(binary, scratch, document, count)
    print(f"{requests} requests")
    outcome = "FAILED" if count.failed else "ok"
    print(f"test result: {outcome}. {count.passed} passed; {count.failed} failed; {count.ignored} ignored")
    return 1 if count.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
