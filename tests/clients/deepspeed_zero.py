#!/usr/bin/env python3
"""Checkpoints that DeepSpeed itself has written, consolidated by the trainer: the same bits as DeepSpeed's own consolidation.

Two processes train a small Llama for two steps on the CPU under ZeRO 1, 2 and 3, in f32 and bf16. Needs torch, transformers,
safetensors and deepspeed (`DS_BUILD_OPS=0 DS_ACCELERATOR=cpu pip install deepspeed`), and says so where they are absent:
    tests/clients/deepspeed_zero.py target/debug/callsmith-train
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

RANKS = 2
STAGES = [1, 2, 3]
TYPES = ["fp32", "bf16"]


def small_llama():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    # Sizes that two ranks cannot share evenly.
    config = LlamaConfig(vocab_size=61, hidden_size=24, intermediate_size=35, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=True)  # fmt: skip
    return LlamaForCausalLM(config)


def train(folder, stage, dtype):
    """One of the two processes."""
    import deepspeed
    import torch

    deepspeed.init_distributed(dist_backend="gloo")
    model = small_llama()
    # A frozen part, as beside adapters.
    model.model.layers[0].mlp.up_proj.weight.requires_grad = False
    trained = [p for p in model.parameters() if p.requires_grad]
    settings = {
        "train_micro_batch_size_per_gpu": 2,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": dtype == "bf16"},
    }
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    for step in range(2):
        torch.manual_seed(10 * step + engine.global_rank)
        ids = torch.randint(0, 61, (2, 16))
        engine.backward(engine(input_ids=ids, labels=ids).loss)
        engine.step()
    engine.save_checkpoint(folder)


def consolidated_by_deepspeed(folder):
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    return get_fp32_state_dict_from_zero_checkpoint(folder)


def compare(trainer, folder, name):
    import torch
    from safetensors.torch import load_file

    out = Path(folder) / "ours.safetensors"
    subprocess.run([trainer, "convert", "zero-to-hf", "--from", folder, "--out", out], check=True, stdout=subprocess.DEVNULL)
    ours, theirs = load_file(out), consolidated_by_deepspeed(folder)
    missing = sorted(set(theirs) ^ set(ours))
    different = [key for key in set(ours) & set(theirs) if not torch.equal(ours[key], theirs[key].float())]
    # A tied head is one tensor under two names: either name will do.
    missing = [key for key in missing if key != "lm_head.weight"]
    assert not missing and not different, f"{name}: in one alone {missing}, different {sorted(different)}"
    moved = sum(not torch.equal(value, small_llama().state_dict()[key]) for key, value in ours.items())
    assert moved > 0, f"{name}: nothing was trained"
    print(f"ok     {name}: {len(ours)} tensors, {moved} of them trained")


def main():
    if len(sys.argv) == 5 and sys.argv[1] == "--rank":
        return train(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    try:
        import deepspeed, safetensors, torch, transformers  # noqa: E401, F401
    except ImportError as missing:
        return print(f"not run: {missing}")
    environment = dict(os.environ, DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    for stage in STAGES:
        for dtype in TYPES:
            with tempfile.TemporaryDirectory() as folder:
                ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
                subprocess.run([*ranks, __file__, "--rank", folder, str(stage), dtype], check=True, env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
                compare(sys.argv[1], folder, f"ZeRO {stage}, {dtype}")


if __name__ == "__main__":
    main()
