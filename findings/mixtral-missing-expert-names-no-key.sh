#!/usr/bin/env bash
# One tensor of one expert is missing from a file: the error names neither the key nor the file.
#
# transformers 5.24.0, CPU. A tiny Mixtral is saved, then one of an expert's three matrices is taken out of the file.
# Guess: `output_loading_info` lists the expert's key under `missing_keys`, as for any other weight that is not there.
# Seen:  RuntimeError without the key, as the experts of a layer are stacked into one tensor while reading; with all
#        three matrices of the expert gone another RuntimeError, about sizes, without the key too; with every expert of
#        the layer gone the model loads and `missing_keys` has them, stacked. Asking for the loading info helps in one
#        case of three; the names stand only in a table that the logger prints.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.24.0
cd "$work"
HF_HUB_OFFLINE=1 ./venv/bin/python - <<'PY'
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

transformers.logging.set_verbosity_error()
torch.manual_seed(0)
config = MixtralConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, num_local_experts=4,
)
MixtralForCausalLM(config).save_pretrained("whole")
weights = load_file("whole/model.safetensors")
print([key for key in weights if "expert" in key][:4])


def load(without):
    """What is said of a file without the tensors whose names hold one of the words."""
    kept = {key: value for key, value in weights.items() if not any(word in key for word in without)}
    assert len(kept) < len(weights), without
    config.save_pretrained("broken")
    save_file(kept, "broken/model.safetensors", {"format": "pt"})
    try:
        _, info = AutoModelForCausalLM.from_pretrained("broken", output_loading_info=True)
    except Exception as error:
        return type(error).__name__, str(error)
    return "loads", {name: sorted(map(str, info[name])) for name in ("missing_keys", "mismatched_keys")}


one = load(["experts.1.w1"])
expert = load(["experts.1.w"])
layer = load([".experts."])
for case, result in (("one matrix", one), ("one expert", expert), ("all experts", layer)):
    print(case, "->", str(result)[:300])
assert one[0] == "RuntimeError" and "experts.1.w1" not in one[1], one
assert expert[0] == "RuntimeError" and "experts.1" not in expert[1], expert
assert layer[0] == "loads" and layer[1]["missing_keys"], layer
PY
echo "unchanged"
