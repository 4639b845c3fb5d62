#!/usr/bin/env python3
"""LoRA training beside Hugging Face PEFT on the same model, the same tokens and the same threads: tokens/s and peak memory.

Needs torch, transformers and peft (says so and stops where they are absent), and the built binaries:
    callsmith bench make-model m --tokenizer DIR --layers 8        # any Hugging Face directory will do
    tests/bench/train_lora.py --model m --binary target/release/callsmith-train
Each side runs in a process of its own, one after the other, `--rounds` times. The first step of each is not counted.
`--labels answers` trains on a fifth of the tokens, as dialogues with calls do; PEFT computes the logits of all rows either way.
`--recompute` switches on gradient checkpointing on both sides.
"""

import argparse
import json
import os
import pathlib
import random
import re
import resource
import statistics
import string
import subprocess
import sys
import tempfile

RECIPE = """
method = "lora"
output = "{output}"
threads = {threads}
[model]
path = "{model}"
weights = "{weights}"
[lora]
rank = {rank}
alpha = {rank}
[optim]
lr = 1e-4
[batch]
tokens = {tokens}
max_len = {tokens}
recompute = "{recompute}"
[[phase]]
steps = {steps}
source = [{{ jsonl = "{data}", lm_weight = {lm_weight} }}]
[log]
every = 1
[checkpoint]
every = 100000
"""

def words(rng, count):
    return " ".join("".join(rng.choices(string.ascii_lowercase, k=4)) for _ in range(count))


def write_data(path, args):
    """One conversation a line, all of about `--seq` tokens, a fifth of them the answer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(pathlib.Path(args.model, "tokenizer.json")))
    rng = random.Random(1)
    per_word = len(tokenizer.encode(words(rng, 400)).ids) / 400
    count = int((args.seq - 24) / per_word)
    with open(path, "w") as file:
        for _ in range(args.batch * args.steps):
            messages = [
                {"role": "user", "content": words(rng, count * 4 // 5)},
                {"role": "assistant", "content": words(rng, count // 5)},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def ours(args, folder):
    data = pathlib.Path(folder, "data.jsonl")
    write_data(data, args)
    recipe = pathlib.Path(folder, "recipe.toml")
    recipe.write_text(RECIPE.format(
        output=folder + "/run", threads=args.threads, model=args.model, weights=args.weights, rank=args.rank,
        tokens=args.seq * args.batch, recompute="all" if args.recompute else "off", steps=args.steps, data=data,
        lm_weight=1.0 if args.labels == "all" else 0.0,
    ))  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run([args.binary, "lora", str(recipe)], check=True, stderr=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak > before, "a child before was larger; run the script anew"
    lines = [json.loads(line) for line in open(folder + "/run/train.jsonl")]
    steps = [line for line in lines if line["event"] == "step"][1:]
    speed = statistics.median(line["tokens_per_second"] for line in steps)
    return {"tokens_per_second": speed, "peak_mb": peak / 1024, "last_loss": steps[-1]["loss"]}


def theirs(args):
    import time

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    dtype = torch.bfloat16 if args.peft_dtype == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=targets, task_type="CAUSAL_LM"))
    if args.recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    model.train()
    times = []
    for step in range(args.steps):
        ids = torch.randint(0, model.config.vocab_size, (args.batch, args.seq))
        labels = ids.clone()
        if args.labels == "answers":
            labels[:, : args.seq * 4 // 5] = -100
        start = time.monotonic()
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.monotonic() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tokens_per_second": args.seq * args.batch / statistics.median(times[1:]), "peak_mb": peak,
                      "last_loss": loss.item()}))  # fmt: skip


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--binary", default="target/release/callsmith-train")
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--weights", default="f32", choices=["f32", "bf16", "q8_0", "q4_k"], help="how ours holds the base")
    parser.add_argument("--peft-dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--labels", default="all", choices=["all", "answers"])
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--side", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    return parser.parse_args()


def run_side(side):
    done = subprocess.run([sys.executable, *sys.argv, "--side", side], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(re.findall(r"^\{.*\}$", done.stdout, re.M)[-1])


def main():
    args = parse()
    if args.side == "theirs":
        return theirs(args)
    if args.side == "ours":
        with tempfile.TemporaryDirectory() as folder:
            return print(json.dumps(ours(args, folder)))
    try:
        import peft, torch, transformers  # noqa: E401, F401
    except ImportError as missing:
        return print(f"not run: {missing}")
    for number in range(args.rounds):
        theirs_found, ours_found = run_side("theirs"), run_side("ours")
        speed = ours_found["tokens_per_second"] / theirs_found["tokens_per_second"]
        memory = ours_found["peak_mb"] / theirs_found["peak_mb"]
        print(f"round {number + 1}: PEFT {theirs_found['tokens_per_second']:.0f} tokens/s {theirs_found['peak_mb']:.0f} MB, "
              f"callsmith {ours_found['tokens_per_second']:.0f} tokens/s {ours_found['peak_mb']:.0f} MB: "
              f"{speed:.2f} x the speed, {memory:.2f} x the memory", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
