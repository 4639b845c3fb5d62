#!/usr/bin/env python3
"""Adapters that the trainer writes, loaded by Hugging Face PEFT and by the server: the same probabilities of the next token.

Trains small adapters of each kind on the built-in model, serves them (those with new tokens merged into their base), and compares
the most likely next tokens after some prompts with those of transformers and peft. Needs torch, transformers and peft, and says so where they are absent:
    tests/clients/peft_adapter.py target/debug/callsmith target/debug/callsmith-train
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from support import first_model, server

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models/embedded"
# Recipe and changes of it.
KINDS = {
    "lora": [],
    "rslora": ["lora.rslora=true"],
    "dora": ["lora.dora=true"],
    "patterns": ['lora.rank_pattern={ "q_proj" = 8, "layers.1.mlp.up_proj" = 2 }', 'lora.alpha_pattern={ "v_proj" = 3.0 }'],
    "few": ['lora.target_modules=["q_proj", "mlp.down_proj"]', "lora.layers=[1, 3]"],
    "prompt": [],
    "tokens": ['new_tokens=[{ text = "recipient_name" }, { text = "<|new|>", special = true, description = "a new call" }]'],
}
METHODS = {"prompt": "prompt"}
# Kinds that no server takes as they are.
MERGED = {"tokens"}
PROMPTS = ["The weather in Paris", "{\"tool_uses\":[{\"recipient_name\":\"functions.", "set a timer for"]
# Largest difference of a log probability.
TOLERANCE = 0.002


def train(trainer, folder, kind, sets):
    output = folder / kind
    data = folder / "data.jsonl"
    if not data.exists():
        subprocess.run([trainer, "data", "synth", "--count", "40", "--out", data], check=True)
    fixed = [f'output="{output}"', "optim.lr=0.01", "optim.warmup_steps=0", "phase.0.steps=3", f'phase.0.source.0.jsonl="{data}"']
    args = [part for each in [*fixed, *sets] for part in ("--set", each)]
    method = METHODS.get(kind, "lora")
    subprocess.run([trainer, method, f"train/recipes/{method}.toml", *args], check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    return output / "model"


def merged(trainer, adapter, out):
    subprocess.run([trainer, "merge", "--base", MODEL, "--adapter", adapter, "--out", out, "--dtype", "f32"], check=True, stderr=subprocess.DEVNULL)
    return out


def served(address, name, prompt):
    body = {"model": name, "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 5}
    request = urllib.request.Request(address + "/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    choice = json.load(urllib.request.urlopen(request))["choices"][0]
    return sorted(choice["logprobs"]["top_logprobs"][0].values(), reverse=True)


def expected(torch, model, tokenizer, prompt):
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False).ids])
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits[0, -1].log_softmax(-1)
    return logprobs.topk(5).values.tolist()


def main():
    try:
        import torch
        from peft import PeftModel
        from tokenizers import Tokenizer
        from transformers import AutoModelForCausalLM
    except ImportError as missing:
        return print(f"skipped: {missing}")
    binary, trainer = (str(Path(path).resolve()) for path in sys.argv[1:3])

    def check(kind, path, ours):
        own = path / "tokenizer.json"
        tokenizer = Tokenizer.from_file(str(own if own.exists() else MODEL / "tokenizer.json"))
        base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        base.resize_token_embeddings(max(base.config.vocab_size, tokenizer.get_vocab_size()))
        plain = [expected(torch, base, tokenizer, prompt) for prompt in PROMPTS]
        model = PeftModel.from_pretrained(base, path).eval()
        theirs = [expected(torch, model, tokenizer, prompt) for prompt in PROMPTS]
        gap = lambda a, b: max(abs(x - y) for one, other in zip(a, b) for x, y in zip(one, other))  # noqa: E731
        assert gap(theirs, plain) > 5 * TOLERANCE, f"{kind} changes nothing"
        assert gap(theirs, ours) < TOLERANCE, f"{kind}: {theirs} and {ours}"
        print(f"ok {kind}: log probabilities within {gap(theirs, ours):.4f} of PEFT's")

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        adapters = {kind: train(trainer, folder, kind, sets) for kind, sets in KINDS.items()}
        plain = [kind for kind in KINDS if kind not in MERGED]
        options = [part for kind in plain for part in ("--adapter", f"{kind}={adapters[kind]}")]
        with server(binary, *options) as address:
            for kind in plain:
                check(kind, adapters[kind], [served(address, kind, prompt) for prompt in PROMPTS])
        for kind in MERGED:
            with server(binary, "--model", merged(trainer, adapters[kind], folder / "merged")) as address:
                check(kind, adapters[kind], [served(address, first_model(address), prompt) for prompt in PROMPTS])


if __name__ == "__main__":
    main()
