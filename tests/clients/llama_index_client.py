"""LlamaIndex (`OpenAILike`): function calls, streams, structured output, an agent's whole run, and plain completion.

Knows LlamaIndex's messages and tool selections alone.
"""

import asyncio
from typing import Literal

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.llms import ChatMessage
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

from support import (
    SUNNY_WORD, TIMER, TIMER_CALL, TWO_CITIES, WEATHER, WEATHER_CALL, get_weather, main, set_timer, valid_call,
)

TOOLS = [FunctionTool.from_defaults(get_weather), FunctionTool.from_defaults(set_timer)]


class Light(BaseModel):
    """Set the light."""

    on: bool
    colour: Literal["red", "green"] = Field(description="Colour of the light")


def calls_of(llm, response):
    calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    assert all(call.tool_id.startswith("call_") for call in calls), calls
    return [valid_call(call.tool_name, call.tool_kwargs) for call in calls]


def function_calls(llm, model):
    for question, call in [(WEATHER, WEATHER_CALL), (TIMER, TIMER_CALL)]:
        response = llm.chat_with_tools(TOOLS, user_msg=question)
        assert calls_of(llm, response) == [call], response
        usage = response.raw.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0, usage


def chosen_functions(llm, model):
    required = llm.chat_with_tools(TOOLS[1:], user_msg="Hello!", tool_required=True)
    assert len(calls_of(llm, required)) >= 1, required
    named = llm.chat_with_tools(TOOLS, user_msg=WEATHER, tool_choice="set_timer")
    assert {name for name, _ in calls_of(llm, named)} == {"set_timer"}, named


def parallel_functions(llm, model):
    response = llm.chat_with_tools(TOOLS, user_msg=TWO_CITIES, allow_parallel_tool_calls=True)
    assert len(calls_of(llm, response)) == 2, response


def streamed_functions(llm, model):
    """LlamaIndex's own accumulator arrives at the calls of the whole response."""
    for question in (WEATHER, TWO_CITIES):
        options = {"user_msg": question, "allow_parallel_tool_calls": True}
        responses = list(llm.stream_chat_with_tools(TOOLS, **options))
        whole = calls_of(llm, llm.chat_with_tools(TOOLS, **options))
        assert len(responses) > 2 and calls_of(llm, responses[-1]) == whole != [], responses[-1]


def streamed_text(llm, model):
    messages = [ChatMessage(role="user", content="Hello!")]
    pieces = [response.delta for response in llm.stream_chat(messages)]
    assert "".join(pieces) == llm.chat(messages).message.content != "", pieces


def a_called_function(llm, model):
    """LlamaIndex runs the function that the model chose."""
    response = llm.predict_and_call(TOOLS, user_msg=WEATHER)
    assert SUNNY_WORD in response.response, response


def structured_output(llm, model):
    """`as_structured_llm`, which asks for one function built from the class, whole and streamed."""
    structured = llm.as_structured_llm(Light)
    messages = [ChatMessage(role="user", content="Turn on the red light.")]
    whole = structured.chat(messages).raw
    streamed = [response.raw for response in structured.stream_chat(messages)]
    assert isinstance(whole, Light), whole
    assert Light.model_validate(streamed[-1].model_dump()) == whole, streamed[-1]


def structured_by_function(llm, model):
    """The function that LlamaIndex builds from a class, called by name."""
    tool = get_function_tool(Light)
    response = llm.chat_with_tools([tool], user_msg="Turn on the red light.", tool_required=True)
    [call] = llm.get_tool_calls_from_response(response)
    assert call.tool_name == "Light" and Light.model_validate(call.tool_kwargs), call


def an_agent(llm, model):
    """Call, result, answer, streamed by the workflow; the answer is made of the result."""

    async def run():
        handler = FunctionAgent(tools=TOOLS, llm=llm, streaming=True).run(WEATHER)
        events = [event async for event in handler.stream_events()]
        return events, await handler

    events, output = asyncio.run(run())
    results = [event for event in events if isinstance(event, ToolCallResult)]
    assert [valid_call(event.tool_name, event.tool_kwargs) for event in results] == [WEATHER_CALL], results
    assert SUNNY_WORD in output.response.content, output


def completion(llm, model):
    """A model that is not said to chat is asked for text completions, whole and streamed."""
    plain = OpenAILike(**settings(llm.api_base, model), is_chat_model=False, max_tokens=12)
    whole = plain.complete("The weather in Paris is").text
    assert whole and "".join(part.delta for part in plain.stream_complete("The weather in Paris is")) == whole


CHECKS = [
    function_calls, chosen_functions, parallel_functions, streamed_functions, streamed_text, a_called_function,
    structured_output, structured_by_function, an_agent, completion,
]


def settings(base, model):
    return {"model": model, "api_base": base, "api_key": "none", "temperature": 0, "max_retries": 0}


def connect(address, model):
    return OpenAILike(**settings(f"{address}/v1", model), is_chat_model=True, is_function_calling_model=True)


if __name__ == "__main__":
    main(CHECKS, connect)
