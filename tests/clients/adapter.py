"""Writes a small random PEFT adapter for the built-in model, in the form that Hugging Face PEFT writes.

Knows the shapes from `models/embedded/config.json` alone; it has learnt nothing.
"""

import json
from pathlib import Path

import numpy
from safetensors.numpy import save_file

MODEL = Path(__file__).parents[2] / "models/embedded/config.json"
RANK = 4


def write_adapter(directory, seed):
    """Adapts the queries and values of every block, too weakly to change what the model says."""
    model = json.loads(MODEL.read_text())
    hidden, heads, width = model["hidden_size"], model["num_attention_heads"], model["head_dim"]
    rows = {"q_proj": heads * width, "v_proj": model["num_key_value_heads"] * width}
    random = numpy.random.default_rng(seed)
    tensors = {}
    for layer in range(model["num_hidden_layers"]):
        for module, out in rows.items():
            site = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{site}.lora_A.weight"] = random.normal(0, 1e-3, (RANK, hidden)).astype(numpy.float32)
            tensors[f"{site}.lora_B.weight"] = random.normal(0, 1e-3, (out, RANK)).astype(numpy.float32)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "callsmith",
        "r": RANK,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "target_modules": sorted(rows),
        "bias": "none",
        "inference_mode": True,
    }
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, directory / "adapter_model.safetensors")
