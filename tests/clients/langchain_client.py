"""LangChain (`langchain-openai`): bound tools, streams, structured output by schema and by function, a whole exchange.

Knows LangChain's messages alone.
"""

import asyncio
from typing import Literal

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

from support import (
    SUNNY_WORD, TIMER, TIMER_CALL, TWO_CITIES, WEATHER, WEATHER_CALL, get_weather, main, set_timer, valid_call,
)

TOOLS = [tool(get_weather, parse_docstring=True), tool(set_timer, parse_docstring=True)]


class Light(BaseModel):
    """Set the light."""

    on: bool
    colour: Literal["red", "green"] = Field(description="Colour of the light")


def calls_of(message):
    assert not message.invalid_tool_calls, message
    assert all(call["id"].startswith("call_") for call in message.tool_calls), message
    return [valid_call(call["name"], call["args"]) for call in message.tool_calls]


def check_usage(message):
    usage = message.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0, usage


def bound_tools(llm, model):
    bound = llm.bind_tools(TOOLS)
    for question, call in [(WEATHER, WEATHER_CALL), (TIMER, TIMER_CALL)]:
        answer = bound.invoke(question)
        assert calls_of(answer) == [call], answer
        assert answer.response_metadata["finish_reason"] == "tool_calls", answer.response_metadata
        assert answer.response_metadata["model_name"] == model, answer.response_metadata
        check_usage(answer)


def chosen_tools(llm, model):
    """`any` must call, a name must call that one; `strict` sends OpenAI's subset."""
    forced = llm.bind_tools(TOOLS[1:], tool_choice="any", parallel_tool_calls=False, strict=True).invoke("Hello!")
    assert len(calls_of(forced)) == 1, forced
    named = llm.bind_tools(TOOLS, tool_choice="set_timer").invoke(WEATHER)
    assert {name for name, _ in calls_of(named)} == {"set_timer"}, named


def streamed_calls(llm, model):
    """The sum of the chunks is the whole message."""
    bound = llm.bind_tools(TOOLS)
    for question in (WEATHER, TWO_CITIES):
        chunks = list(bound.stream(question))
        total = chunks[0]
        for chunk in chunks[1:]:
            total += chunk
        assert len(chunks) > 2 and calls_of(total) == calls_of(bound.invoke(question)) != [], total
        assert total.response_metadata["finish_reason"] == "tool_calls", total
        check_usage(total)


def streamed_text(llm, model):
    pieces = [chunk.content for chunk in llm.stream("Hello!")]
    assert "".join(pieces) == llm.invoke("Hello!").content != "", pieces


def an_exchange(llm, model):
    """Call, result, answer, with LangChain running the tool."""
    bound = llm.bind_tools(TOOLS)
    messages = [HumanMessage(WEATHER)]
    messages.append(bound.invoke(messages))
    messages += [TOOLS[0].invoke(call) for call in messages[-1].tool_calls]
    assert isinstance(messages[-1], ToolMessage), messages
    answer = bound.invoke(messages)
    assert SUNNY_WORD in answer.content and calls_of(answer) == [], answer


def structured_by_schema(llm, model):
    """The default: `response_format` with the model's JSON Schema."""
    answer = llm.with_structured_output(Light, include_raw=True).invoke("Turn on the red light.")
    assert isinstance(answer["parsed"], Light) and answer["parsing_error"] is None, answer
    assert not answer["raw"].tool_calls and answer["raw"].content, answer


def structured_by_function(llm, model):
    answer = llm.with_structured_output(Light, method="function_calling", include_raw=True).invoke("Turn on the light.")
    assert isinstance(answer["parsed"], Light) and answer["parsing_error"] is None, answer
    assert [call["name"] for call in answer["raw"].tool_calls] == ["Light"], answer


def structured_streams(llm, model):
    """Partial objects grow into the whole one."""
    for method in ("json_schema", "function_calling"):
        structured = llm.with_structured_output(Light.model_json_schema() | {"title": "Light"}, method=method)
        parts = list(structured.stream("Turn on the light."))
        Light.model_validate(parts[-1])
        assert parts[-1] == structured.invoke("Turn on the light."), parts


def a_batch(llm, model):
    answers = llm.bind_tools(TOOLS).batch([WEATHER, TIMER] * 3)
    assert [calls_of(answer) for answer in answers] == [[WEATHER_CALL], [TIMER_CALL]] * 3


def an_asynchronous_stream(llm, model):
    async def pieces():
        return [chunk async for chunk in llm.bind_tools(TOOLS).astream(TIMER)]

    names = [call["name"] for chunk in asyncio.run(pieces()) for call in chunk.tool_call_chunks if call["name"]]
    assert names == ["set_timer"], names


def responses_api(llm, model):
    """The same over the Responses API, whole and streamed."""
    over = llm.model_copy(update={"use_responses_api": True}).bind_tools(TOOLS)
    whole = over.invoke(WEATHER)
    chunks = list(over.stream(WEATHER))
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert calls_of(whole) == calls_of(total) == [WEATHER_CALL], (whole, total)
    check_usage(whole)


CHECKS = [
    bound_tools, chosen_tools, streamed_calls, streamed_text, an_exchange, structured_by_schema, structured_by_function,
    structured_streams, a_batch, an_asynchronous_stream, responses_api,
]


def connect(address, model):
    return ChatOpenAI(
        base_url=f"{address}/v1", api_key="none", model=model, temperature=0, max_retries=0, stream_usage=True
    )


if __name__ == "__main__":
    main(CHECKS, connect)
