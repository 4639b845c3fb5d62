"""OpenAI's Agents SDK: tools, streams, structured output and handoffs, over chat completions and over responses.

Knows the SDK's results and items alone. Tracing, which would report to OpenAI, is off.
"""

import asyncio
from typing import Literal

from agents import (
    Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

from support import (
    SUNNY_WORD, TIMER, TIMER_CALL, TWO_CITIES, WEATHER, WEATHER_CALL, get_weather, main, over, set_timer, valid_call,
)

TOOLS = [function_tool(get_weather), function_tool(set_timer)]


class Light(BaseModel):
    on: bool
    colour: Literal["red", "green"]


def agent(chat, settings=None, **options):
    settings = (settings or ModelSettings()).resolve(ModelSettings(temperature=0, max_tokens=200))
    return Agent(name="Assistant", model=chat, model_settings=settings, **options)


def items_of(result, kind):
    return [item for item in result.new_items if item.type == kind]


def calls_of(result):
    calls = [item.raw_item for item in items_of(result, "tool_call_item")]
    assert all(call.call_id.startswith("call_") for call in calls), calls
    assert len({call.call_id for call in calls}) == len(calls), calls
    return [valid_call(call.name, call.arguments) for call in calls]


def check_usage(result, requests):
    usage = result.context_wrapper.usage
    assert usage.requests == requests, usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0, usage


def a_tool(chat):
    result = Runner.run_sync(agent(chat, tools=TOOLS), WEATHER)
    assert calls_of(result) == [WEATHER_CALL], result.new_items
    assert SUNNY_WORD in result.final_output, result.final_output
    check_usage(result, requests=2)


def parallel_tools(chat):
    result = Runner.run_sync(agent(chat, tools=TOOLS), TWO_CITIES)
    assert len(calls_of(result)) == len(items_of(result, "tool_call_output_item")) == 2, result.new_items
    assert isinstance(result.final_output, str), result


def a_required_tool(chat):
    """The run ends with the first tool's result: what `set_timer` returned is the output."""
    required = ModelSettings(tool_choice="set_timer", parallel_tool_calls=False)
    result = Runner.run_sync(agent(chat, required, tools=TOOLS, tool_use_behavior="stop_on_first_tool"), TIMER)
    assert calls_of(result) == [TIMER_CALL] and "started" in result.final_output, result


def a_second_turn(chat):
    """The items of one run are the input of the next."""
    first = Runner.run_sync(agent(chat, tools=TOOLS), WEATHER)
    items = [*first.to_input_list(), {"role": "user", "content": TIMER}]
    second = Runner.run_sync(agent(chat, tools=TOOLS), items)
    assert calls_of(second) == [TIMER_CALL], second.new_items


def a_stream(chat):
    """The raw events' text is the final output, after the call and its result."""

    async def run():
        result = Runner.run_streamed(agent(chat, tools=TOOLS), WEATHER)
        return result, [event async for event in result.stream_events()]

    result, events = asyncio.run(run())
    raw = [event.data for event in events if event.type == "raw_response_event"]
    text = "".join(event.delta for event in raw if event.type == "response.output_text.delta")
    arguments = "".join(event.delta for event in raw if event.type == "response.function_call_arguments.delta")
    names = [event.name for event in events if event.type == "run_item_stream_event"]
    assert names == ["tool_called", "tool_output", "message_output_created"], names
    assert calls_of(result) == [WEATHER_CALL] == [valid_call("get_weather", arguments)], arguments
    assert text == result.final_output and SUNNY_WORD in text, text


def structured_output(chat):
    result = Runner.run_sync(agent(chat, output_type=Light), "Turn on the red light.")
    assert isinstance(result.final_output, Light), result.final_output


def a_handoff(chat):
    """A handoff is a function without arguments; the second agent goes on with the items of the first."""
    weather = agent(chat, tools=TOOLS).clone(name="Weather")
    chosen = ModelSettings(tool_choice="transfer_to_weather")
    result = Runner.run_sync(agent(chat, chosen, handoffs=[weather]), WEATHER)
    assert result.last_agent is weather and items_of(result, "handoff_output_item"), result.new_items


def model_of(api):
    """A model with a client of its own, that lives no longer than its check, as the check's event loop does."""
    return lambda address, model: api(
        model, openai_client=AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    )


CHECKS = [
    over(kind, model_of(api), check)
    for kind, api in (("chats", OpenAIChatCompletionsModel), ("responses", OpenAIResponsesModel))
    for check in (
        a_tool, parallel_tools, a_required_tool, a_second_turn, a_stream, structured_output, a_handoff,
    )
]

if __name__ == "__main__":
    set_tracing_disabled(True)
    main(CHECKS)
