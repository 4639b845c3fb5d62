"""NVIDIA's `tritonclient[http]`: health, metadata, inference in JSON and in binary, statistics, the model repository.

Always starts its own server, because the repository is a directory of adapters that it writes itself. Knows that the
output is the model's raw text, and how the built-in model's dialect writes a call in it.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from adapter import write_adapter
from support import (
    TIMER, TIMER_CALL, WEATHER, WEATHER_CALL, chat_tools, first_model, raises, run_checks, server, valid_call,
)

TOOLS, TIMER_TOOL = json.dumps(chat_tools("get_weather", "set_timer")), json.dumps(chat_tools("set_timer"))
ADAPTER = "tiny"


def text_input(text, binary=False, name="text_input", shape=(1,)):
    tensor = InferInput(name, list(shape), "BYTES")
    tensor.set_data_from_numpy(numpy.array([text.encode()] * shape[0], dtype=object), binary_data=binary)
    return [tensor]


def infer(client, model, text, binary=False, **parameters):
    """The output's text, asked for and answered as JSON or as length-prefixed bytes."""
    outputs = [InferRequestedOutput("text_output", binary_data=binary)]
    parameters = {"temperature": 0, "max_tokens": 60, **parameters}
    result = client.infer(model, text_input(text, binary), outputs=outputs, request_id="seven", parameters=parameters)
    response, [text] = result.get_response(), result.as_numpy("text_output")
    assert (response["model_name"], response["id"]) == (model, "seven"), response
    [output] = response["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("text_output", "BYTES", [1]), output
    assert ("data" in output) == (not binary), output
    return text.decode() if isinstance(text, bytes) else text


def calls_of(text):
    """The calls that the dialect `tool_uses` wrote."""
    uses = json.loads(text)["tool_uses"]
    return [valid_call(use["recipient_name"].removeprefix("functions."), use["parameters"]) for use in uses]


def health(client, model):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(model) and client.is_model_ready(model, "1")
    assert not client.is_model_ready("nobody")


def metadata(client, model):
    server = client.get_server_metadata()
    assert server["name"] and server["version"] and "binary_tensor_data" in server["extensions"], server
    found = client.get_model_metadata(model)
    assert found["name"] == model and found["versions"] == ["1"] and found["platform"], found
    assert {"name": "text_input", "datatype": "BYTES", "shape": [1]} in found["inputs"], found
    assert {"name": "text_output", "datatype": "BYTES", "shape": [1]} in found["outputs"], found


def config(client, model):
    found = client.get_model_config(model)
    assert found["name"] == model and found["max_batch_size"] == 0, found
    assert {"name": "text_input", "data_type": "TYPE_STRING", "dims": [1]}.items() <= found["input"][0].items(), found
    assert {"name": "text_output", "data_type": "TYPE_STRING", "dims": [1]}.items() <= found["output"][0].items(), found


def calls(client, model):
    """The raw text of a call, the same in both encodings."""
    for question, call in [(WEATHER, WEATHER_CALL), (TIMER, TIMER_CALL)]:
        texts = [infer(client, model, question, binary, tools=TOOLS) for binary in (False, True)]
        assert texts[0] == texts[1] and calls_of(texts[0]) == [call], texts


def default_outputs(client, model):
    """A client that names no output gets all of them, in binary, as it asked by default."""
    result = client.infer(model, text_input("Hello!", binary=True), parameters={"temperature": 0, "max_tokens": 20})
    [text] = result.as_numpy("text_output")
    assert text.decode() == infer(client, model, "Hello!", max_tokens=20) != "", text
    assert result.get_output("text_output")["parameters"]["binary_data_size"] == 4 + len(text), result.get_response()


def forced_calls(client, model):
    named = json.dumps({"type": "function", "function": {"name": "set_timer"}})
    assert calls_of(infer(client, model, "Hello!", tools=TIMER_TOOL, tool_choice="required")) != []
    forced = calls_of(infer(client, model, WEATHER, tools=TOOLS, tool_choice=named))
    assert {name for name, _ in forced} == {"set_timer"}, forced


def sampling(client, model):
    """Two seeds alike give one text; a stop text ends it."""
    drawn = [infer(client, model, "Hello!", temperature=1.0, seed=5, max_tokens=20) for _ in range(2)]
    assert drawn[0] == drawn[1], drawn
    whole = infer(client, model, "Hello!")
    stop = whole.split()[1]
    assert infer(client, model, "Hello!", stop=stop) == whole[: whole.index(stop)], whole


def text_beyond_ascii(client, model):
    """Both encodings carry any Unicode in and out."""
    place = {"type": "object", "properties": {"city": {"type": "string", "enum": ["東京 🌦"]}}, "required": ["city"]}
    tools = json.dumps([{"type": "function", "function": {"name": "choose", "parameters": place}}])
    forced = {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False}
    for binary in (False, True):
        text = infer(client, model, "Zürich – 東京?", binary, **forced)
        assert json.loads(text)["tool_uses"][0]["parameters"] == {"city": "東京 🌦"}, text


def concurrent_requests(client, model):
    parameters = {"temperature": 0, "max_tokens": 60, "tools": TOOLS}
    questions = [(WEATHER, WEATHER_CALL), (TIMER, TIMER_CALL)] * 3
    pending = [client.async_infer(model, text_input(text), parameters=parameters) for text, _ in questions]
    texts = [each.get_result().as_numpy("text_output")[0] for each in pending]
    assert [calls_of(text) for text in texts] == [[call] for _, call in questions], texts


def statistics(client, model):
    def count():
        [found] = client.get_inference_statistics(model)["model_stats"]
        assert found["name"] == model, found
        success, fail = found["inference_stats"]["success"], found["inference_stats"]["fail"]
        assert success["count"] <= found["inference_count"] and success["ns"] > 0 and fail["ns"] >= 0, found
        return success["count"]

    before = count()
    infer(client, model, "Hello!")
    assert count() == before + 1


def errors(client, model):
    """Triton's own form of error, which the client raises with its status."""
    parameters = {"max_tokens": 5}
    with raises(InferenceServerException):
        client.infer("nobody", text_input("Hello!"), parameters=parameters)
    for inputs in (text_input("Hello!", name="prompt"), text_input("Hello!", shape=(2,))):
        with raises(InferenceServerException):
            client.infer(model, inputs, parameters=parameters)
    for bad in ({"tools": "[{"}, {"temperature": 9}, {"tools": TOOLS, "tool_choice": "nobody"}):
        with raises(InferenceServerException):
            client.infer(model, text_input("Hello!"), parameters=bad)
    try:
        client.infer("nobody", text_input("Hello!"), parameters=parameters)
    except InferenceServerException as error:
        assert error.status() in ("400", "404") and "nobody" in error.message(), error


def repository(client, model):
    """An adapter is a model: loaded, used, loaded again and unloaded; the base stays."""

    def states():
        return {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}

    assert states()[model] == "READY" and states().get(ADAPTER) != "READY", states()
    client.load_model(ADAPTER)
    client.load_model(ADAPTER)
    assert states()[ADAPTER] == "READY" and client.is_model_ready(ADAPTER), states()
    assert calls_of(infer(client, ADAPTER, WEATHER, tools=TOOLS)) == [WEATHER_CALL]
    assert client.get_model_metadata(ADAPTER)["name"] == ADAPTER
    client.unload_model(ADAPTER)
    assert states().get(ADAPTER) != "READY" and states()[model] == "READY", states()
    for change in (client.load_model, client.unload_model):
        with raises(InferenceServerException):
            change("nobody")


CHECKS = [
    health, metadata, config, calls, default_outputs, forced_calls, sampling, text_beyond_ascii, concurrent_requests,
    statistics, errors, repository,
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True, help="callsmith binary to start, on a free port")
    binary = parser.parse_args().binary
    with tempfile.TemporaryDirectory() as root:
        write_adapter(Path(root) / ADAPTER, seed=1)
        with server(binary, "--adapter-root", root) as address:
            model = first_model(address)
            with InferenceServerClient(address.removeprefix("http://"), concurrency=6) as client:
                failed = run_checks(CHECKS, client, model)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
