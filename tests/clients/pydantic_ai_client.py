"""Pydantic AI: agents with tools and with structured output, whole and streamed, over chats and over responses.

Knows the agents' results and messages alone.
"""

import asyncio
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.messages import ToolCallPart, ToolReturnPart
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from support import (
    SUNNY_WORD, TIMER, TIMER_CALL, TWO_CITIES, WEATHER, WEATHER_CALL, get_weather, main, over, set_timer, valid_call,
)

SETTINGS = ModelSettings(temperature=0, max_tokens=200)


class Light(BaseModel):
    """Set the light."""

    on: bool
    colour: Literal["red", "green"] = Field(description="Colour of the light")


def agent(chat, **options):
    return Agent(chat, model_settings=SETTINGS, retries=0, **options)


def parts(result, kind):
    return [part for message in result.all_messages() for part in message.parts if isinstance(part, kind)]


def calls_of(result):
    return [valid_call(part.tool_name, part.args_as_dict()) for part in parts(result, ToolCallPart)]


def check_exchange(result):
    """One call with its result, and an answer made of it."""
    assert calls_of(result) == [WEATHER_CALL], result.all_messages()
    assert len(parts(result, ToolReturnPart)) == 1, result.all_messages()
    assert result.usage.requests == 2 and result.usage.output_tokens > 0, result.usage


def a_tool(chat):
    result = agent(chat, tools=[get_weather, set_timer]).run_sync(WEATHER)
    check_exchange(result)
    assert SUNNY_WORD in result.output, result.output


def parallel_tools(chat):
    result = agent(chat, tools=[get_weather, set_timer]).run_sync(TWO_CITIES)
    ids = [part.tool_call_id for part in parts(result, ToolCallPart)]
    assert len(calls_of(result)) == len(set(ids)) == 2, result.all_messages()
    assert [part.tool_call_id for part in parts(result, ToolReturnPart)] == ids, result.all_messages()


def a_tool_in_a_stream(chat):
    async def run():
        async with agent(chat, tools=[get_weather, set_timer]).run_stream(WEATHER) as result:
            return result, [piece async for piece in result.stream_text(delta=True, debounce_by=None)]

    result, pieces = asyncio.run(run())
    check_exchange(result)
    assert len(pieces) > 1 and SUNNY_WORD in "".join(pieces), pieces


def a_second_turn(chat):
    """The history of one run is the beginning of the next."""
    tools = [get_weather, set_timer]
    first = agent(chat, tools=tools).run_sync(WEATHER)
    second = agent(chat, tools=tools).run_sync(TIMER, message_history=first.all_messages())
    assert calls_of(second) == [WEATHER_CALL, TIMER_CALL], second.all_messages()


def structured_by_function(chat):
    """The default: an output function that must be called."""
    for strict in (None, True, False):
        result = agent(chat, output_type=ToolOutput(Light, strict=strict)).run_sync("Turn on the red light.")
        assert isinstance(result.output, Light), result.output
        assert [part.tool_name for part in parts(result, ToolCallPart)] == ["final_result"], result.all_messages()


def structured_by_schema(chat):
    result = agent(chat, output_type=NativeOutput(Light)).run_sync("Turn on the red light.")
    assert isinstance(result.output, Light) and not parts(result, ToolCallPart), result.all_messages()


def one_of_several_outputs(chat):
    """Each output type is a function of its own; one of them is called."""
    result = agent(chat, output_type=[ToolOutput(Light, name="light"), ToolOutput(bool, name="done")]).run_sync("Go.")
    assert isinstance(result.output, (Light, bool)), result.output


def a_structured_stream(chat):
    """Partial objects grow into the whole one."""

    async def run():
        async with agent(chat, output_type=NativeOutput(Light)).run_stream("Turn on the red light.") as result:
            return [part async for part in result.stream_output(debounce_by=None)]

    outputs = asyncio.run(run())
    assert isinstance(outputs[-1], Light), outputs
    assert outputs[-1] == agent(chat, output_type=NativeOutput(Light)).run_sync("Turn on the red light.").output


def model_of(api):
    return lambda address, model: api(model, provider=OpenAIProvider(base_url=f"{address}/v1", api_key="none"))


CHECKS = [
    over(kind, model_of(api), check)
    for kind, api in (("chats", OpenAIChatModel), ("responses", OpenAIResponsesModel))
    for check in (
        a_tool, parallel_tools, a_tool_in_a_stream, a_second_turn, structured_by_function, structured_by_schema,
        one_of_several_outputs, a_structured_stream,
    )
]

if __name__ == "__main__":
    main(CHECKS)
