"""The stock OpenAI SDK against a running callsmith: tools, streamed and not, text, errors, models.

    python tests/clients/openai_sdk.py --binary target/release/callsmith     starts a server on a free port
    python tests/clients/openai_sdk.py --url http://127.0.0.1:8000/v1       uses a running one

Needs `pip install -r tests/clients/requirements.txt`. Checks form, not knowledge: any model passes.
"""

import argparse
import json
import signal
import subprocess
from contextlib import contextmanager

import jsonschema
import openai

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 40},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}
LIGHT = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}
SCHEMAS = {"get_weather": WEATHER, "set_light": LIGHT}
TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": SCHEMAS[name], "strict": True},
    }
    for name, description in [("get_weather", "Current weather of a city"), ("set_light", "Turn the light on or off")]
]
QUESTION = [{"role": "user", "content": "What is the weather in Paris in celsius?"}]


def check_calls(calls):
    """Every call has an id, a known name and valid arguments."""
    for call in calls:
        assert call.id.startswith("call_"), call
        assert call.type == "function", call
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])


def a_required_call(client, model):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, temperature=0
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls", choice
    assert choice.message.content is None and len(choice.message.tool_calls) == 1, choice
    check_calls(choice.message.tool_calls)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def a_named_call(client, model):
    named = {"type": "function", "function": {"name": "set_light"}}
    answer = client.chat.completions.create(model=model, messages=QUESTION, tools=TOOLS, tool_choice=named, seed=1)
    calls = answer.choices[0].message.tool_calls
    assert calls and all(call.function.name == "set_light" for call in calls), answer
    if answer.choices[0].finish_reason != "length":
        check_calls(calls)


def an_automatic_answer(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, tools=TOOLS, max_tokens=200, seed=1)
    choice = answer.choices[0]
    assert choice.finish_reason in ("stop", "tool_calls", "length"), choice
    if choice.finish_reason == "tool_calls":
        check_calls(choice.message.tool_calls)


def a_streamed_call(client, model):
    """The SDK's own accumulator must arrive at the call of the whole response."""
    request = {
        "model": model,
        "messages": QUESTION,
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
    }
    whole = client.chat.completions.create(**request).choices[0]
    with client.chat.completions.stream(**request, stream_options={"include_usage": True}) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in events, events
    choice = final.choices[0]
    assert choice.finish_reason == whole.finish_reason == "tool_calls", final
    streamed = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls]
    assert streamed == [(call.function.name, call.function.arguments) for call in whole.message.tool_calls]
    check_calls(choice.message.tool_calls)
    assert final.usage.completion_tokens > 0, final


def raw_chunks(client, model):
    """Role, id and name come once; usage comes last and alone."""
    stream = client.chat.completions.create(
        model=model,
        messages=QUESTION,
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
        stream=True,
        stream_options={"include_usage": True},
        temperature=0,
    )
    chunks = list(stream)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert sum(delta.role is not None for delta in deltas) == 1
    assert sum(call.id is not None for call in calls) == 1
    assert sum(call.function.name is not None for call in calls) == 1
    assert len({chunk.id for chunk in chunks}) == 1
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []


def a_tool_result(client, model):
    messages = QUESTION + [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Paris","unit":"celsius"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees": 21}'},
    ]
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=TOOLS, tool_choice="none", max_tokens=50
    )
    assert isinstance(answer.choices[0].message.content, str), answer
    assert not answer.choices[0].message.tool_calls, answer


def a_json_answer(client, model):
    schema = {"name": "light", "strict": True, "schema": LIGHT}
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, response_format={"type": "json_schema", "json_schema": schema}
    )
    jsonschema.validate(json.loads(answer.choices[0].message.content), LIGHT)


def text_with_logprobs(client, model):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, max_completion_tokens=8, logprobs=True, top_logprobs=2
    )
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens, answer
    assert all(entry.logprob <= 1e-6 and len(entry.top_logprobs) == 2 for entry in entries)


def errors(client, model):
    """Each failure arrives as the SDK's own exception class, with param and code."""
    try:
        client.chat.completions.create(model="nobody", messages=QUESTION)
        raise AssertionError("an unknown model was served")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and error.param == "model", error
        assert error.request_id, error
    bad = {"type": "function", "function": {"name": "bad", "parameters": {"type": "object", "properties": {"x": {"type": "text"}}}}}
    try:
        client.chat.completions.create(model=model, messages=QUESTION, tools=[*TOOLS, bad])
        raise AssertionError("a bad schema was served")
    except openai.BadRequestError as error:
        assert error.param == "tools[2].function.parameters", error.param
        assert error.code == "invalid_function_parameters", error.code
    try:
        client.chat.completions.create(model=model, messages=QUESTION, temperature=3)
        raise AssertionError("temperature 3 was served")
    except openai.BadRequestError as error:
        assert (error.param, error.code) == ("temperature", "decimal_above_max_value"), error


def models(client, model):
    listed = list(client.models.list())
    assert listed[0].id == model, listed
    assert client.models.retrieve(model).id == model


CHECKS = [
    a_required_call,
    a_named_call,
    an_automatic_answer,
    a_streamed_call,
    raw_chunks,
    a_tool_result,
    a_json_answer,
    text_with_logprobs,
    errors,
    models,
]


@contextmanager
def server(binary, options):
    """Starts the binary on a free port, yields its URL, and ends it with SIGTERM."""
    process = subprocess.Popen([binary, "serve", "--port", "0", *options], stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if line.startswith("listening on "):
                break
        else:
            raise SystemExit(f"{binary} did not start")
        yield line.split()[-1] + "/v1"
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
    assert code == 0, f"exit code {code} after SIGTERM"


def run(url):
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120)
    model = client.models.list().data[0].id
    for check in CHECKS:
        check(client, model)
        print(f"ok  {check.__name__}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="base URL of a running server, ending in /v1")
    where.add_argument("--binary", help="callsmith binary to start")
    parser.add_argument("options", nargs="*", help="further options of `callsmith serve`, after `--`")
    arguments = parser.parse_args()
    if arguments.url:
        run(arguments.url)
    else:
        with server(arguments.binary, arguments.options) as url:
            run(url)


if __name__ == "__main__":
    main()
