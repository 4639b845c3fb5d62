"""OpenAI's Python SDK: the Responses API with functions, structured answers and text, streamed and not, kept and not.

Knows the SDK's objects and the order of its events; the bytes on the wire are the business of the Rust tests.
"""

import openai

from openai_sdk import GetWeather, Light, connect
from support import (
    FUNCTIONS, SUNNY, SUNNY_WORD, TIMER, TIMER_CALL, TWO_CITIES, WEATHER, WEATHER_CALL, main, raises, valid_call,
)

TOOLS = [{"type": "function", "name": name, "strict": True, **FUNCTIONS[name]} for name in ("get_weather", "set_timer")]
ONE_CALL = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0}
# Longer than the shortest limit that the API knows, whatever the model says.
LONG = {
    "type": "object",
    "properties": {"flags": {"type": "array", "items": {"type": "boolean"}, "minItems": 60, "maxItems": 60}},
    "required": ["flags"],
    "additionalProperties": False,
}


def calls_of(response):
    """Every call has ids of its own, is complete and fits its function's schema."""
    calls = [item for item in response.output if item.type == "function_call"]
    assert all(call.call_id.startswith("call_") and call.status == "completed" for call in calls), calls
    assert len({call.id for call in calls} | {call.call_id for call in calls}) == 2 * len(calls), calls
    return [valid_call(call.name, call.arguments) for call in calls]


def check_usage(usage):
    assert usage.input_tokens > 0 and usage.output_tokens > 0, usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens, usage
    assert usage.input_tokens_details.cached_tokens <= usage.input_tokens, usage
    assert usage.output_tokens_details.reasoning_tokens == 0, usage


def results_of(response, output=SUNNY):
    calls = [item for item in response.output if item.type == "function_call"]
    return [{"type": "function_call_output", "call_id": call.call_id, "output": output} for call in calls]


def text(client, model):
    response = client.responses.create(model=model, input="Hello!", temperature=0)
    assert response.id.startswith("resp_") and response.object == "response", response
    assert response.status == "completed" and response.error is None and response.incomplete_details is None, response
    [message] = response.output
    assert message.type == "message" and message.role == "assistant" and message.status == "completed", message
    assert message.id.startswith("msg_") and message.content[0].text == response.output_text != "", message
    check_usage(response.usage)


def a_required_call(client, model):
    response = client.responses.create(model=model, input=WEATHER, **ONE_CALL)
    assert response.status == "completed" and response.output_text == "", response
    assert [item.type for item in response.output] == ["function_call"], response
    assert calls_of(response) == [WEATHER_CALL], response
    check_usage(response.usage)


def automatic_calls(client, model):
    for question, call in [(WEATHER, WEATHER_CALL), (TIMER, TIMER_CALL)]:
        response = client.responses.create(model=model, input=question, tools=TOOLS, temperature=0)
        assert calls_of(response) == [call], response


def chosen_calls(client, model):
    """A named function, a list of allowed ones, and none at all."""
    ask = {"model": model, "input": WEATHER, "tools": TOOLS, "temperature": 0}
    timer = {"type": "function", "name": "set_timer"}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [timer]}
    for choice in (timer, allowed):
        calls = calls_of(client.responses.create(**ask, tool_choice=choice))
        assert {name for name, _ in calls} == {"set_timer"}, calls
    response = client.responses.create(**ask, tool_choice="none", max_output_tokens=40)
    assert [item.type for item in response.output] == ["message"], response


def parallel_calls(client, model):
    request = {"model": model, "input": TWO_CITIES, "tools": TOOLS, "temperature": 0}
    whole = calls_of(client.responses.create(**request))
    with client.responses.stream(**request) as stream:
        events = list(stream)
        streamed = calls_of(stream.get_final_response())
    added = [event.output_index for event in events if event.type == "response.output_item.added"]
    assert len(whole) == 2 and streamed == whole and added == [0, 1], (whole, streamed, added)


def a_conversation(client, model):
    """Call, result, answer: the items go back as they came, and the answer is made of the result."""
    items = [{"role": "user", "content": WEATHER}]
    first = client.responses.create(model=model, input=items, tools=TOOLS, temperature=0, store=False)
    items += [item.to_dict() for item in first.output] + results_of(first)
    second = client.responses.create(model=model, input=items, tools=TOOLS, temperature=0, store=False)
    assert SUNNY_WORD in second.output_text and calls_of(second) == [], second


def a_kept_conversation(client, model):
    """The same by `previous_response_id`: only the result is sent."""
    ask = {"model": model, "tools": TOOLS, "temperature": 0}
    first = client.responses.create(input=WEATHER, **ask)
    second = client.responses.create(previous_response_id=first.id, input=results_of(first), **ask)
    assert second.previous_response_id == first.id and SUNNY_WORD in second.output_text, second
    third = client.responses.create(previous_response_id=second.id, input=TIMER, **ask)
    assert calls_of(third) == [TIMER_CALL], third
    with raises(openai.BadRequestError):
        client.responses.create(previous_response_id=first.id, input="The call has no result yet.", **ask)


def kept_responses(client, model):
    """A response can be read until it is deleted; one that was not to be kept is not there."""
    kept = client.responses.create(model=model, input=WEATHER, **ONE_CALL)
    assert client.responses.retrieve(kept.id) == kept
    [asked] = client.responses.input_items.list(kept.id)
    assert asked.role == "user" and asked.content[0].text == WEATHER, asked
    client.responses.delete(kept.id)
    forgotten = client.responses.create(model=model, input=WEATHER, store=False, **ONE_CALL)
    for gone in (kept.id, forgotten.id, "resp_nobody"):
        with raises(openai.NotFoundError):
            client.responses.retrieve(gone)
    with raises(openai.NotFoundError):
        client.responses.delete(kept.id)
    with raises(openai.BadRequestError, param="previous_response_id", code="previous_response_not_found"):
        client.responses.create(model=model, input="And?", previous_response_id=kept.id)


def streamed(client, request, delta, middle):
    """The events of a response of one item, which come in their order; `middle` are those of the item that are no `delta`."""
    events = list(client.responses.create(**request, stream=True))
    middle = ["output_item.added", *middle, "output_item.done"]
    kinds = [event.type for event in events if event.type != delta]
    assert kinds == [f"response.{kind}" for kind in ("created", "in_progress", *middle, "completed")], kinds
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


def a_streamed_call(client, model):
    """The events come in their order, carry the pieces of one item, and end with the whole response."""
    request = {"model": model, "input": WEATHER, **ONE_CALL}
    whole = client.responses.create(**request)
    delta = "response.function_call_arguments.delta"
    events = streamed(client, request, delta, ["function_call_arguments.done"])
    added, *deltas, done, item, completed = events[2:]
    assert deltas and {event.type for event in deltas} == {delta}, deltas
    assert (added.item.status, added.item.arguments, added.item.name) == ("in_progress", "", "get_weather"), added
    assert {event.item_id for event in (*deltas, done)} == {added.item.id} == {item.item.id}
    assert "".join(event.delta for event in deltas) == done.arguments == item.item.arguments
    assert item.item.call_id == added.item.call_id and completed.response.output == [item.item], completed
    assert calls_of(completed.response) == calls_of(whole) == [WEATHER_CALL]
    assert events[0].response.status == "in_progress" and events[0].response.id == completed.response.id
    check_usage(completed.response.usage)


def streamed_text(client, model):
    request = {"model": model, "input": "Hello!", "temperature": 0}
    whole = client.responses.create(**request)
    middle = ["content_part.added", "output_text.done", "content_part.done"]
    events = streamed(client, request, "response.output_text.delta", middle)
    _, _, added, part, *deltas, done, part_done, item, completed = events
    assert added.item.content == [] and part.part.text == "", (added, part)
    assert "".join(event.delta for event in deltas) == done.text == part_done.part.text == whole.output_text
    assert {event.item_id for event in (part, *deltas, done, part_done)} == {added.item.id} == {item.item.id}
    assert completed.response.output_text == whole.output_text, completed


def a_stream_helper(client, model):
    """The SDK's own accumulator parses the arguments of a strict function and the text of a format."""
    weather = openai.pydantic_function_tool(GetWeather, name="get_weather")["function"]
    request = {"model": model, "temperature": 0}
    with client.responses.stream(input=WEATHER, tools=[{"type": "function", **weather}], **request) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.function_call_arguments.delta"]
        [call] = stream.get_final_response().output
    assert call.parsed_arguments == {"city": "Paris"} and snapshots[-1] == call.arguments, call
    with client.responses.stream(input="Turn on the light.", text_format=Light, **request) as stream:
        streamed = stream.get_final_response().output_parsed
    assert isinstance(streamed, Light), streamed


def a_parsed_answer(client, model):
    request = {"model": model, "input": "Turn on the light.", "temperature": 0}
    response = client.responses.parse(**request, text_format=Light)
    assert isinstance(response.output_parsed, Light), response
    assert response.text.format.type == "json_schema", response.text


def a_cut_answer(client, model):
    """Too few tokens: the response is incomplete and says why, streamed or not."""
    tool = {"type": "function", "name": "set_flags", "parameters": LONG, "strict": True}
    request = {"model": model, "input": "Set all flags.", "tools": [tool], "tool_choice": "required"}
    request |= {"max_output_tokens": 16, "temperature": 0}
    whole = client.responses.create(**request)
    last = list(client.responses.create(**request, stream=True))[-1]
    assert last.type == "response.incomplete", last
    for response in (whole, last.response):
        assert response.status == "incomplete", response
        assert response.incomplete_details.reason == "max_output_tokens", response
        assert response.usage.output_tokens == 16, response
        assert all(item.status == "incomplete" for item in response.output), response


def echoed_settings(client, model):
    """A response says what it was asked for."""
    response = client.responses.create(
        model=model,
        instructions="Be brief.",
        input=[
            {"role": "developer", "content": "Answer in English."},
            {"role": "user", "content": [{"type": "input_text", "text": WEATHER}]},
        ],
        tools=TOOLS,
        tool_choice="auto",
        metadata={"trace": "7"},
        max_output_tokens=64,
        temperature=0,
    )
    assert response.instructions == "Be brief." and response.metadata == {"trace": "7"}, response
    assert (response.temperature, response.max_output_tokens, response.tool_choice) == (0, 64, "auto"), response
    assert [(tool.type, tool.name, tool.strict) for tool in response.tools] == [
        ("function", "get_weather", True),
        ("function", "set_timer", True),
    ], response.tools


def errors(client, model):
    """`none` and `auto` need no functions here, unlike in chats; `required` does."""
    create = client.responses.create
    bad = {"type": "function", "name": "bad", "parameters": {"type": "object", "properties": {"x": {"type": "text"}}}}
    for choice in ("none", "auto"):
        assert create(model=model, input="Hello!", tool_choice=choice).status == "completed"
    with raises(openai.BadRequestError, param="tool_choice"):
        create(model=model, input="Hello!", tool_choice="required")
    with raises(openai.NotFoundError, param="model", code="model_not_found"):
        create(model="nobody", input="Hello!")
    with raises(openai.BadRequestError, param="tools[2].parameters", code="invalid_function_parameters"):
        create(model=model, input="Hello!", tools=[*TOOLS, bad])
    with raises(openai.BadRequestError, param="temperature", code="decimal_above_max_value"):
        create(model=model, input="Hello!", temperature=3)


CHECKS = [
    text, a_required_call, automatic_calls, chosen_calls, parallel_calls, a_conversation, a_kept_conversation,
    kept_responses, a_streamed_call, streamed_text, a_stream_helper, a_parsed_answer, a_cut_answer, echoed_settings,
    errors,
]

if __name__ == "__main__":
    main(CHECKS, connect)
