"""What the tests of deploy/ share: its files, the tools, and a callsmith or Prometheus of their own.

Knows where things are and how they are started, not what they should hold.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BINARY = os.environ["CALLSMITH_BINARY"]


def load(name):
    """The one document of a YAML file of deploy/."""
    return yaml.safe_load((DEPLOY / name).read_text())


def manifests():
    """(file name, document) of every Kubernetes object."""
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if "kind" in document:
                yield path.name, document


def manifest(kind, version=None):
    """The one object of that kind (and API version)."""
    found = [it for _, it in manifests() if it["kind"] == kind and version in (None, it["apiVersion"])]
    assert len(found) == 1, f"{len(found)} objects are {kind}"
    return found[0]


def container(owner):
    """The one container of a Deployment or a ServingRuntime."""
    spec = owner["spec"].get("template", owner)["spec"]
    (only,) = spec["containers"]
    return only


def tool(name):
    """The tool's path; a test without its tool is skipped."""
    path = shutil.which(name)
    if path is None:
        raise unittest.SkipTest(f"what {name} would check in deploy/ (it could not be fetched)")
    return path


def ran(*command, cwd=None):
    """(exit code, everything printed)."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    return done.returncode, done.stdout


@contextmanager
def ended(process):
    """Ends the process with SIGTERM after the block; it then has to exit with 0."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
    assert code == 0, f"{process.args[0]}: exit code {code} after SIGTERM"


@contextmanager
def callsmith(arguments, environment=()):
    """Starts the binary, yields its address once it listens."""
    environment = {**os.environ, "CALLSMITH_LOG": "warn", **dict(environment)}
    command = [BINARY, *arguments]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)) as process:
        line = next((line for line in process.stdout if line.startswith("listening on ")), None)
        assert line, f"{command} did not start"
        yield line.split()[-1]


@contextmanager
def prometheus(config, directory):
    """Starts Prometheus on that configuration file, yields its address once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = [f"--config.file={config}", f"--storage.tsdb.path={directory}/data", f"--web.listen-address={address}"]
    with open(f"{directory}/prometheus.log", "w") as log:
        process = subprocess.Popen([tool("prometheus"), *options], stdout=log, stderr=log)
    with ended(process):
        until(lambda: status(f"http://{address}/-/ready") == 200, "Prometheus is ready")
        yield f"http://{address}"


def until(holds, what, seconds=30):
    """Waits for something that takes a moment, and returns it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return found


def call(url, body=None, key=None):
    """(status, text) of a GET, or of a POST of JSON."""
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def status(url):
    """The status of a GET; None if nobody listens."""
    try:
        return call(url)[0]
    except (urllib.error.URLError, ConnectionError):
        return None
