"""Writes a LoRA adapter for the built-in model with nothing but the standard library.

Knows the shapes from `models/embedded/config.json` alone, and no server.
"""

import json
import struct
from pathlib import Path

MODEL = Path(__file__).parents[2] / "models/embedded/config.json"


def write_adapter(directory):
    """A LoRA adapter of the built-in model that changes nothing: zero matrices of rank 1."""
    model = json.loads(MODEL.read_text())
    shapes = {"A": [1, model["hidden_size"]], "B": [model["num_attention_heads"] * model["head_dim"], 1]}
    header, at = {}, 0
    for layer in range(model["num_hidden_layers"]):
        for factor, shape in shapes.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{factor}.weight"
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at := at + 4 * max(shape)]}
    text = json.dumps(header).encode()
    directory.mkdir(parents=True)
    (directory / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"], "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
