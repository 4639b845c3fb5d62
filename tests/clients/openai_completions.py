"""OpenAI's Python SDK: text completions, streamed and not.

Knows nothing of chats and functions: a prompt goes in as it is, text comes out. The SDK's own type for a chunk denies
the null reasons that OpenAI sends, so types are judged by these checks alone.
"""

import openai

from openai_sdk import check_usage
from support import main, raises

PROMPT = "The weather in Paris is"


def text(client, model):
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=12, temperature=0)
    choice = answer.choices[0]
    assert answer.id.startswith("cmpl-") and answer.object == "text_completion", answer
    assert choice.index == 0 and choice.text and choice.finish_reason in ("stop", "length"), choice
    assert answer.usage.completion_tokens <= 12, answer
    check_usage(answer.usage)


def sixteen_tokens(client, model):
    """OpenAI's default length."""
    answer = client.completions.create(model=model, prompt=PROMPT, seed=1)
    assert answer.usage.completion_tokens <= 16, answer


def streamed_text(client, model):
    request = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**request)
    chunks = list(client.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.text for choice in choices) == whole.choices[0].text
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == [whole.choices[0].finish_reason]
    assert len({chunk.id for chunk in chunks}) == 1 and len(choices) > 1, chunks
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == whole.usage.total_tokens, chunks[-1]


def several_prompts(client, model):
    """Choices come in the order of the prompts, and each is what its prompt alone would give."""
    prompts = [PROMPT, "Set a timer for"]
    together = client.completions.create(model=model, prompt=prompts, max_tokens=6, temperature=0).choices
    alone = [
        client.completions.create(model=model, prompt=prompt, max_tokens=6, temperature=0).choices[0].text
        for prompt in prompts
    ]
    assert [choice.index for choice in together] == [0, 1], together
    assert [choice.text for choice in together] == alone, together


def several_choices(client, model):
    request = {"model": model, "prompt": PROMPT, "max_tokens": 6, "n": 2, "seed": 3}
    first, second = (client.completions.create(**request).choices for _ in range(2))
    assert [choice.index for choice in first] == [0, 1] and first == second, (first, second)


def token_ids(client, model):
    answer = client.completions.create(model=model, prompt=[5, 6, 7], max_tokens=4, temperature=0)
    assert answer.usage.prompt_tokens == 3, answer


def a_stop_text(client, model):
    request = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**request).choices[0].text
    stop = whole.split()[-1]
    cut = client.completions.create(**request, stop=stop).choices[0]
    assert cut.finish_reason == "stop" and cut.text == whole[: whole.index(stop)], (whole, cut)


def logprobs(client, model):
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=5, temperature=0, logprobs=2)
    found = answer.choices[0].logprobs
    count = answer.usage.completion_tokens
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == count, found
    assert len(found.text_offset) == count and found.text_offset == sorted(found.text_offset), found
    assert all(value <= 1e-6 for value in found.token_logprobs), found
    # Of a greedy token, no other is likelier.
    pairs = zip(found.token_logprobs, found.top_logprobs, strict=True)
    assert all(abs(max(top.values()) - value) < 1e-4 for value, top in pairs), found


def errors(client, model):
    with raises(openai.NotFoundError, param="model", code="model_not_found"):
        client.completions.create(model="nobody", prompt=PROMPT)
    with raises(openai.BadRequestError, param="temperature", code="decimal_above_max_value"):
        client.completions.create(model=model, prompt=PROMPT, temperature=3)


CHECKS = [
    text, sixteen_tokens, streamed_text, several_prompts, several_choices, token_ids, a_stop_text, logprobs, errors,
]


def connect(address, _):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120)


if __name__ == "__main__":
    main(CHECKS, connect)
