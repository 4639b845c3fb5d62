"""Instructor: structured output in each of its modes, partial and iterated, with its own validation on top.

Knows Pydantic models alone: how a mode asks for them is Instructor's business. One attempt each: a wrong first answer
is a failure, not a reason to ask again.
"""

import asyncio
import json
from typing import Literal

import instructor
import openai
from pydantic import BaseModel, Field

from support import main, user

MODES = [instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA]
QUESTION = {"messages": user("Turn on the red light."), "temperature": 0, "max_retries": 0}


class Lamp(BaseModel):
    room: Literal["kitchen", "hall"]
    level: int = Field(ge=0, le=100)


class Light(BaseModel):
    """Set the light."""

    on: bool
    colour: Literal["red", "green"]
    lamps: list[Lamp] = Field(min_length=1, max_length=2)


class Change(BaseModel):
    what: Lamp | Light


def modes(client, model):
    for mode in MODES:
        light = instructor.from_openai(client, mode=mode).create(model=model, response_model=Light, **QUESTION)
        assert isinstance(light, Light), (mode, light)


def a_completion(client, model):
    """The raw completion is handed out beside the object."""
    patched = instructor.from_openai(client)
    light, raw = patched.create_with_completion(model=model, response_model=Light, **QUESTION)
    [call] = raw.choices[0].message.tool_calls
    assert call.function.name == "Light" and json.loads(call.function.arguments) == light.model_dump(), raw
    assert raw.usage.total_tokens == raw.usage.prompt_tokens + raw.usage.completion_tokens > 0, raw.usage


def partial_objects(client, model):
    """What a stream has shown so far grows into a whole object."""
    for mode in MODES:
        patched = instructor.from_openai(client, mode=mode)
        parts = [part.model_dump() for part in patched.create_partial(model=model, response_model=Light, **QUESTION)]
        known = [[value for value in part.values() if value is not None] for part in parts]
        sizes = [len(values) for values in known]
        assert sizes == sorted(sizes) and sizes[0] < sizes[-1] == len(Light.model_fields), (mode, parts)
        Light.model_validate(parts[-1])


def an_iterable(client, model):
    """A list of objects, streamed one by one."""
    patched = instructor.from_openai(client, mode=instructor.Mode.TOOLS)
    lamps = list(patched.create_iterable(model=model, response_model=Lamp, max_tokens=400, **QUESTION))
    assert lamps and all(isinstance(lamp, Lamp) for lamp in lamps), lamps


def one_of_two(client, model):
    """A union becomes alternatives within the schema."""
    answer = instructor.from_openai(client).create(model=model, response_model=Change, **QUESTION)
    assert isinstance(answer.what, (Lamp, Light)), answer


def asynchronously(client, model):
    async def run():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none", max_retries=0) as plain:
            patched = instructor.from_openai(plain)
            asked = [patched.create(model=model, response_model=Light, **QUESTION) for _ in range(4)]
            return await asyncio.gather(*asked)

    lights = [light.model_dump() for light in asyncio.run(run())]
    assert Light.model_validate(lights[0]) and lights == [lights[0]] * 4, lights


CHECKS = [modes, a_completion, partial_objects, an_iterable, one_of_two, asynchronously]


def connect(address, _):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120)


if __name__ == "__main__":
    main(CHECKS, connect)
