#!/usr/bin/env python3
"""How much a long prompt slows an answer that is being streamed: the times between its tokens, without and with it.

Any OpenAI-compatible server that takes `ignore_eos`; standard library only:
    tests/bench/long_prompt.py --url http://127.0.0.1:8080 --prompt-tokens 4000
"""

import argparse
import json
import random
import statistics
import string
import threading
import time
import urllib.request


def post(url, body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(url + "/v1/chat/completions", data, {"content-type": "application/json"})
    return urllib.request.urlopen(request, timeout=600)


def body_of(model, words, max_tokens, **more):
    return {
        "model": model,
        "messages": [{"role": "user", "content": words}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        **more,
    }


def random_words(count, seed):
    rng = random.Random(seed)
    return " ".join("".join(rng.choices(string.ascii_lowercase, k=4)) for _ in range(count))


def stream(url, body, started=None, enough=None):
    """The moments at which pieces of an answer came; `started` is set after two of them, `enough` ends it."""
    moments = []
    with post(url, body | {"stream": True}) as answer:
        for line in answer:
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"]:
                moments.append(time.perf_counter())
                if started and len(moments) == 2:
                    started.set()
            if enough and enough.is_set():
                break
    return moments


def tokens_per_word(url, model):
    words = random_words(200, 1)
    with post(url, body_of(model, words, 1)) as answer:
        return json.load(answer)["usage"]["prompt_tokens"] / 200


def gaps(moments, begin=None, end=None):
    pairs = zip(moments[1:], moments[2:])
    return [b - a for a, b in pairs if (begin is None or a >= begin) and (end is None or a <= end)]


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def show(name, values):
    millis = [value * 1e3 for value in values]
    p50, p99 = statistics.median(millis), quantile(millis, 0.99)
    print(f"{name:<24} {len(millis):5} gaps   p50 {p50:7.1f} ms   p99 {p99:7.1f} ms   max {max(millis):7.1f} ms")
    return p50, p99


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--prompt-tokens", type=int, default=4000)
    parser.add_argument("--answer-tokens", type=int, default=200, help="of the answer without the long prompt")
    args = parser.parse_args()
    with urllib.request.urlopen(args.url + "/v1/models") as models:
        model = json.load(models)["data"][0]["id"]
    words = int(args.prompt_tokens / tokens_per_word(args.url, model))
    stream(args.url, body_of(model, random_words(20, 2), 32))
    alone = gaps(stream(args.url, body_of(model, random_words(20, 3), args.answer_tokens)))

    started, enough, result = threading.Event(), threading.Event(), {}

    def answer():
        body = body_of(model, random_words(20, 4), args.prompt_tokens)
        result["moments"] = stream(args.url, body, started, enough)

    running = threading.Thread(target=answer)
    running.start()
    started.wait()
    begin = time.perf_counter()
    with post(args.url, body_of(model, random_words(words, 5), 1)) as reply:
        usage = json.load(reply)["usage"]
    end = time.perf_counter()
    enough.set()
    running.join()
    _, p99_alone = show("alone", alone)
    _, p99_beside = show("beside the long prompt", gaps(result["moments"], begin, end))
    print(f"prompt of {usage['prompt_tokens']} tokens taken in within {end - begin:.1f} s; p99 ratio {p99_beside / p99_alone:.2f}")


if __name__ == "__main__":
    main()
