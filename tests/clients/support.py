"""What the clients' checks share: a server on a free port, the functions on offer, and one way to run and count checks.

Imports no client library but jsonschema, so that it works in each of their environments; knows no wire format.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import urllib.request
from contextlib import contextmanager, nullcontext
from pathlib import Path

import jsonschema

FUNCTIONS = json.loads((Path(__file__).parent / "tools.json").read_text())
# Requests that the built-in model is known to serve, with the calls it makes at temperature 0.
WEATHER, WEATHER_CALL = "What is the weather in Paris?", ("get_weather", {"city": "Paris"})
TIMER, TIMER_CALL = "Set a timer for 12 minutes, please.", ("set_timer", {"minutes": 12})
TWO_CITIES = "What is the weather in Paris and in London?"
TWO_CALLS = [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "London"})]
# What `get_weather` returns, and a word of it that the answer then must hold.
SUNNY, SUNNY_WORD = '{"weather":"sunny"}', "sunny"


def get_weather(city: str) -> str:
    """Get the current weather for a city.

    Args:
        city: City name
    """
    return SUNNY


def set_timer(minutes: int) -> str:
    """Start a timer that rings when it ends.

    Args:
        minutes: Length in minutes.
    """
    return json.dumps({"status": "started"})


def chat_tools(*names, **more):
    """The named functions as chat completions take them; `more` goes into each function (`strict=True`)."""
    return [{"type": "function", "function": {"name": name, **FUNCTIONS[name], **more}} for name in names]


def valid_call(name, arguments):
    """Asserts that the call names a function on offer and fits its schema; returns both, for comparing."""
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    assert name in FUNCTIONS, f"called {name!r}"
    jsonschema.validate(arguments, FUNCTIONS[name]["parameters"])
    return name, arguments


def user(text):
    return [{"role": "user", "content": text}]


@contextmanager
def raises(error, **attributes):
    """Asserts that the block raises `error` with these attributes."""
    try:
        yield
    except error as caught:
        found = {name: getattr(caught, name) for name in attributes}
        assert found == attributes, f"{found} is not {attributes}"
    else:
        raise AssertionError(f"no {error.__name__}")


@contextmanager
def server(binary, *options):
    """Starts the binary on a free port, yields its address, and ends it with SIGTERM, as its supervisor would."""
    command = [binary, "serve", "--port", "0", *options]
    quiet = {"CALLSMITH_LOG": "warn", **os.environ}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=quiet)
    try:
        line = next((line for line in process.stdout if line.startswith("listening on ")), None)
        assert line, f"{binary} did not start"
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
    assert code == 0, f"exit code {code} after SIGTERM"


def first_model(address):
    with urllib.request.urlopen(f"{address}/v1/models", timeout=60) as answer:
        return json.load(answer)["data"][0]["id"]


def run_checks(checks, *context):
    """Runs every check, whatever the ones before it did; prints each outcome and the count; returns how many failed."""
    failed = 0
    for check in checks:
        began = time.monotonic()
        try:
            check(*context)
            outcome = "ok    "
        except Exception:
            traceback.print_exc(file=sys.stdout)
            outcome = "FAILED"
            failed += 1
        print(f"{outcome} {check.__name__} ({time.monotonic() - began:.2f} s)", flush=True)
    outcome = "FAILED" if failed else "ok"
    print(f"test result: {outcome}. {len(checks) - failed} passed; {failed} failed; 0 ignored", flush=True)
    return failed


def over(kind, make, check):
    """A check that gets what `make(address, model)` makes afresh, and says `kind` after its name."""

    def run(address, model):
        check(make(address, model))

    run.__name__ = f"{check.__name__} ({kind})"
    return run


def main(checks, connect=lambda address, _: address):
    """Command line of a client's file: `connect(address, model)` makes what is handed to every check."""
    parser = argparse.ArgumentParser()
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--binary", help="callsmith binary to start, on a free port")
    where.add_argument("--url", help="address of a running server instead, such as http://127.0.0.1:8000")
    arguments = parser.parse_args()
    where = server(arguments.binary) if arguments.binary else nullcontext(arguments.url)
    with where as address:
        model = first_model(address)
        failed = run_checks(checks, connect(address, model), model)
    raise SystemExit(1 if failed else 0)
