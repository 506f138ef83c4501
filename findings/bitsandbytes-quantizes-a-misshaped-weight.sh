#!/usr/bin/env bash
# A weight of the wrong shape is quantised and accepted without a word; in full precision it is refused.
#
# transformers 5.24.0 with bitsandbytes 0.50.2, CPU. A tiny LLaMA is saved with one projection of 3 rows instead of 32.
# Guess: `from_pretrained` names the key under `mismatched_keys` and raises, in 4 bits as in full precision.
# Seen:  in full precision it raises; with load_in_4bit it returns a model and `mismatched_keys` is empty. The 3-row
#        projection stands in the model, which fails only when it is first run, far from the file that is to blame.
# So:    whoever loads in 4 bits has to compare the shapes in the files with the architecture's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.24.0 bitsandbytes==0.50.2 accelerate==1.14.0
cd "$work"
HF_HUB_OFFLINE=1 ./venv/bin/python - <<'PY'
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

transformers.logging.set_verbosity_error()
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
LlamaForCausalLM(config).save_pretrained("model")
weights = load_file("model/model.safetensors")
key = "model.layers.0.self_attn.q_proj.weight"
weights[key] = torch.ones(3, 32)
save_file(weights, "model/model.safetensors", {"format": "pt"})

try:
    AutoModelForCausalLM.from_pretrained("model")
    full = "loads"
except RuntimeError as error:
    full = f"raises {type(error).__name__}"
four_bit = BitsAndBytesConfig(load_in_4bit=True)
model, info = AutoModelForCausalLM.from_pretrained("model", quantization_config=four_bit, output_loading_info=True)
projection = model.get_submodule(key.removesuffix(".weight"))
shape = tuple(projection.weight.quant_state.shape)
try:
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]))
    run = "runs"
except Exception as error:
    run = f"raises {type(error).__name__}"
print(f"full precision: {full}; 4 bits: mismatched {list(info['mismatched_keys'])}, kept as {shape}, forward {run}")
assert full.startswith("raises"), full
assert not info["mismatched_keys"] and not info["missing_keys"], info
assert shape == (3, 32), shape
assert run.startswith("raises"), run
PY
echo "unchanged"
