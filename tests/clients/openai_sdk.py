"""OpenAI's Python SDK: chat completions with functions, structured answers and text, streamed and not; errors; models.

Knows the SDK's own objects and helpers alone; the bytes on the wire are the business of the Rust tests. Works with the
SDK's versions 2 and 3.
"""

import asyncio
import json
from typing import Literal

import jsonschema
import openai
from pydantic import BaseModel, ConfigDict, Field

from support import (
    FUNCTIONS, SUNNY, SUNNY_WORD, TIMER, TIMER_CALL, TWO_CITIES, WEATHER, WEATHER_CALL,
    chat_tools, main, raises, user, valid_call,
)

TOOLS = chat_tools("get_weather", "set_timer", strict=True)
ALL_TOOLS = chat_tools(*FUNCTIONS, strict=True)
ONE_CALL = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0}


class Light(BaseModel):
    """A structured answer: every value is bounded, so that any model comes to an end."""

    model_config = ConfigDict(extra="forbid")
    on: bool
    colour: Literal["red", "green"]
    level: int = Field(ge=0, le=100)


class GetWeather(BaseModel):
    """Get the current weather for a city."""

    city: str = Field(description="City name")


def calls_of(message):
    """Every call has an id of its own and fits its function's schema."""
    calls = message.tool_calls or []
    assert all(call.type == "function" and call.id.startswith("call_") for call in calls), calls
    assert len({call.id for call in calls}) == len(calls), calls
    return [valid_call(call.function.name, call.function.arguments) for call in calls]


def check_usage(usage):
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    assert 0 <= usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens, usage


def a_required_call(client, model):
    answer = client.chat.completions.create(model=model, messages=user(WEATHER), **ONE_CALL)
    choice = answer.choices[0]
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion", answer
    assert choice.finish_reason == "tool_calls", choice
    assert choice.message.content is None and choice.message.refusal is None, choice
    assert calls_of(choice.message) == [WEATHER_CALL], choice
    check_usage(answer.usage)


def a_named_call(client, model):
    for name in FUNCTIONS:
        named = {"type": "function", "function": {"name": name}}
        answer = client.chat.completions.create(
            model=model, messages=user(WEATHER), tools=ALL_TOOLS, tool_choice=named, temperature=0
        )
        calls = calls_of(answer.choices[0].message)
        assert calls and all(called == name for called, _ in calls), answer


def an_allowed_call(client, model):
    """Of all functions that the prompt shows, only the allowed one can be called."""
    only = {"mode": "required", "tools": [{"type": "function", "function": {"name": "set_timer"}}]}
    answer = client.chat.completions.create(
        model=model,
        messages=user(WEATHER),
        tools=TOOLS,
        tool_choice={"type": "allowed_tools", "allowed_tools": only},
        temperature=0,
    )
    assert {name for name, _ in calls_of(answer.choices[0].message)} == {"set_timer"}, answer


def an_automatic_call(client, model):
    for question, call in [(WEATHER, WEATHER_CALL), (TIMER, TIMER_CALL)]:
        answer = client.chat.completions.create(model=model, messages=user(question), tools=TOOLS, temperature=0)
        assert answer.choices[0].finish_reason == "tool_calls", answer
        assert calls_of(answer.choices[0].message) == [call], answer


def parallel_calls(client, model):
    request = {"model": model, "messages": user(TWO_CITIES), "tools": TOOLS, "temperature": 0}
    whole = calls_of(client.chat.completions.create(**request).choices[0].message)
    with client.chat.completions.stream(**request) as stream:
        streamed = calls_of(stream.get_final_completion().choices[0].message)
    assert len(whole) == 2 and streamed == whole, (whole, streamed)


def a_streamed_call(client, model):
    """The SDK's own accumulator arrives at the call of the whole response, by way of its typed events."""
    request = {"model": model, "messages": user(WEATHER), **ONE_CALL}
    whole = client.chat.completions.create(**request).choices[0]
    with client.chat.completions.stream(**request, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [event for event in events if event.type == "tool_calls.function.arguments.delta"]
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    choice = final.choices[0]
    assert choice.finish_reason == whole.finish_reason == "tool_calls", final
    assert calls_of(choice.message) == calls_of(whole.message) == [WEATHER_CALL]
    assert len(done) == 1 and done[0].name == "get_weather", done
    assert "".join(event.arguments_delta for event in deltas) == done[0].arguments
    assert done[0].arguments == whole.message.tool_calls[0].function.arguments
    check_usage(final.usage)


def raw_chunks(client, model):
    """Role, id and name come once; usage comes last and alone."""
    stream = client.chat.completions.create(
        model=model, messages=user(WEATHER), stream=True, stream_options={"include_usage": True}, **ONE_CALL
    )
    chunks = list(stream)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert sum(delta.role is not None for delta in deltas) == 1
    assert sum(call.id is not None for call in calls) == 1
    assert sum(call.function.name is not None for call in calls) == 1
    assert {call.index for call in calls} == {0}
    valid_call(calls[0].function.name, "".join(call.function.arguments for call in calls))
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert reasons == [None] * (len(reasons) - 1) + ["tool_calls"]


def a_conversation(client, model):
    """Call, result, answer: the turn of the SDK goes back as it came, and the answer is made of the result."""
    messages = user(WEATHER)
    first = client.chat.completions.create(model=model, messages=messages, tools=TOOLS, temperature=0)
    turn = first.choices[0].message
    messages += [turn.model_dump(exclude_none=True)]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": SUNNY} for call in turn.tool_calls]
    answer = client.chat.completions.create(model=model, messages=messages, tools=TOOLS, temperature=0)
    assert answer.choices[0].finish_reason == "stop" and not answer.choices[0].message.tool_calls, answer
    assert SUNNY_WORD in answer.choices[0].message.content, answer


def no_call(client, model):
    answer = client.chat.completions.create(
        model=model, messages=user(WEATHER), tools=TOOLS, tool_choice="none", max_tokens=50
    )
    assert isinstance(answer.choices[0].message.content, str), answer
    assert not answer.choices[0].message.tool_calls, answer


def several_choices(client, model):
    request = {"model": model, "messages": user("Hello!"), "tools": chat_tools("set_timer"), "tool_choice": "required"}
    request |= {"parallel_tool_calls": False, "n": 3, "seed": 5}
    whole = client.chat.completions.create(**request).choices
    assert [choice.index for choice in whole] == [0, 1, 2], whole
    with client.chat.completions.stream(**request) as stream:
        streamed = stream.get_final_completion().choices
    calls = [calls_of(choice.message) for choice in whole]
    assert all(len(each) == 1 for each in calls), whole
    assert calls == [calls_of(choice.message) for choice in streamed], (whole, streamed)


def streamed_text(client, model):
    request = {"model": model, "messages": user("Hello!"), "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**request).choices[0]
    chunks = client.chat.completions.create(**request, stream=True)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == whole.message.content != ""
    assert choices[-1].finish_reason == whole.finish_reason, choices[-1]


def a_stop_text(client, model):
    request = {"model": model, "messages": user("Hello!"), "temperature": 0}
    whole = client.chat.completions.create(**request).choices[0].message.content
    stop = whole.split()[1]
    cut = client.chat.completions.create(**request, stop=[stop]).choices[0]
    assert cut.finish_reason == "stop" and cut.message.content == whole[: whole.index(stop)], (whole, cut)


def text_with_logprobs(client, model):
    request = {"model": model, "messages": user("Hello!"), "max_completion_tokens": 6, "temperature": 0}
    request |= {"logprobs": True, "top_logprobs": 2}
    answer = client.chat.completions.create(**request)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens, answer
    assert all(entry.logprob <= 1e-6 and len(entry.top_logprobs) == 2 for entry in entries)
    with client.chat.completions.stream(**request) as stream:
        streamed = [entry for event in stream if event.type == "logprobs.content.delta" for entry in event.content]
    assert [entry.token for entry in streamed] == [entry.token for entry in entries]


def a_json_answer(client, model):
    schema = {"name": "light", "strict": True, "schema": Light.model_json_schema()}
    form = {"type": "json_schema", "json_schema": schema}
    answer = client.chat.completions.create(
        model=model, messages=user("Turn on the light."), response_format=form, temperature=0
    )
    jsonschema.validate(json.loads(answer.choices[0].message.content), schema["schema"])


def any_json_object(client, model):
    """Without a schema nothing bounds the answer: some are cut, but whatever ends is an object."""
    answer = client.chat.completions.create(
        model=model, messages=user(WEATHER), response_format={"type": "json_object"}, max_tokens=80, n=4, seed=1
    )
    texts = [choice.message.content for choice in answer.choices]
    ended = [choice.message.content for choice in answer.choices if choice.finish_reason == "stop"]
    assert all(text.startswith("{") for text in texts), texts
    assert ended and all(isinstance(json.loads(text), dict) for text in ended), texts


def a_parsed_answer(client, model):
    """`parse` and `stream` with a Pydantic model as the format."""
    request = {"model": model, "messages": user("Turn on the light."), "response_format": Light, "temperature": 0}
    parsed = client.chat.completions.parse(**request).choices[0].message.parsed
    assert isinstance(parsed, Light), parsed
    with client.chat.completions.stream(**request) as stream:
        done = [event for event in stream if event.type == "content.done"]
    assert [event.parsed for event in done] == [parsed], done


def a_parsed_call(client, model):
    """`parse` and `stream` with a Pydantic model as the function."""
    request = {"model": model, "messages": user(WEATHER), "temperature": 0}
    request |= {"tools": [openai.pydantic_function_tool(GetWeather, name="get_weather")]}
    call = client.chat.completions.parse(**request).choices[0].message.tool_calls[0]
    with client.chat.completions.stream(**request) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
    parsed = [each.function.parsed_arguments for each in (call, streamed)]
    assert parsed == [GetWeather(city="Paris")] * 2, parsed


def a_cut_answer(client, model):
    """Too few tokens: the reason says so, and the helpers raise instead of handing out half a call."""
    request = {"model": model, "messages": user(WEATHER), "max_tokens": 3, **ONE_CALL}
    assert client.chat.completions.create(**request).choices[0].finish_reason == "length"
    with raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**request)
    with raises(openai.LengthFinishReasonError), client.chat.completions.stream(**request) as stream:
        stream.get_final_completion()


def an_abandoned_stream(client, model):
    """A stream that the client closes early; the connection pool and the server go on."""
    request = {"model": model, "messages": user(WEATHER), "stream": True, **ONE_CALL}
    for _ in range(3):
        with client.chat.completions.create(**request) as stream:
            next(iter(stream))
    a_required_call(client, model)


def concurrent_calls(client, model):
    """Each of many requests at once, through the asynchronous client, gets its own answer."""
    pairs = [(WEATHER, WEATHER_CALL), (TIMER, TIMER_CALL)] * 8

    async def ask(asynchronous, question):
        answer = await asynchronous.chat.completions.create(model=model, messages=user(question), **ONE_CALL)
        return calls_of(answer.choices[0].message)

    async def ask_all():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none", max_retries=0) as asynchronous:
            return await asyncio.gather(*(ask(asynchronous, question) for question, _ in pairs))

    assert asyncio.run(ask_all()) == [[call] for _, call in pairs]


def errors(client, model):
    """Each failure arrives as the SDK's own exception class, with param, code and the request's id."""
    create = client.chat.completions.create
    bad = {"type": "object", "properties": {"x": {"type": "text"}}}
    tools = [*TOOLS, {"type": "function", "function": {"name": "bad", "parameters": bad}}]
    with raises(openai.NotFoundError, param="model", code="model_not_found"):
        create(model="nobody", messages=user(WEATHER))
    with raises(openai.BadRequestError, param="tools[2].function.parameters", code="invalid_function_parameters"):
        create(model=model, messages=user(WEATHER), tools=tools)
    with raises(openai.BadRequestError, param="temperature", code="decimal_above_max_value"):
        create(model=model, messages=user(WEATHER), temperature=3)
    with raises(openai.BadRequestError, param="tool_choice"):
        create(model=model, messages=user(WEATHER), tool_choice="required")
    with raises(openai.BadRequestError, param="messages", code="context_length_exceeded"):
        create(model=model, messages=user("word " * 20_000), stream=True)
    try:
        create(model="nobody", messages=user(WEATHER))
    except openai.NotFoundError as error:
        assert error.request_id, error


def request_ids(client, model):
    """Every response says its request's id, and no two are the same."""
    raw = [client.models.with_raw_response.list() for _ in range(2)]
    ids = {answer.headers["x-request-id"] for answer in raw}
    assert len(ids) == 2 and all(ids), ids


def models(client, model):
    listed = list(client.models.list())
    assert listed[0].id == model and listed[0].object == "model", listed
    assert client.models.retrieve(model) == listed[0]
    with raises(openai.NotFoundError, code="model_not_found"):
        client.models.retrieve("nobody")


CHECKS = [
    a_required_call, a_named_call, an_allowed_call, an_automatic_call, parallel_calls, a_streamed_call, raw_chunks,
    a_conversation, no_call, several_choices, streamed_text, a_stop_text, text_with_logprobs, a_json_answer,
    any_json_object, a_parsed_answer, a_parsed_call, a_cut_answer, an_abandoned_stream, concurrent_calls, errors,
    request_ids, models,
]


def connect(address, _):
    """A client that judges every field of every response and chunk by the SDK's own types."""
    return openai.OpenAI(
        base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120, _strict_response_validation=True
    )


if __name__ == "__main__":
    main(CHECKS, connect)
