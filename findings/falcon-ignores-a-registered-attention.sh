#!/usr/bin/env bash
# An attention that is registered under a new name changes Falcon's logits, though the function is the one of "sdpa".
#
# transformers 5.24.0, torch 2.13.0, CPU. Tiny LLaMA and Falcon, a padded batch of two texts; `AttentionInterface` and
# `AttentionMaskInterface` get transformers' own sdpa functions under another name, and `config._attn_implementation`
# names them.
# Guess: both families give the logits of "sdpa" to the last bit, or Falcon refuses the name.
# Seen:  LLaMA does. Falcon compares the name with "sdpa" itself, takes its plain branch for any other, and adds the mask
#        of truth values to its scores: padded positions are looked at, the logits differ, nothing is said.
# So:    whoever swaps attention by a registered name has to ask for `_supports_attention_backend` first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 transformers==5.24.0
cd "$work"
HF_HUB_OFFLINE=1 ./venv/bin/python - <<'PY'
import torch
import transformers
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

transformers.logging.set_verbosity_error()
AttentionInterface.register("same_again", sdpa_attention_forward)
AttentionMaskInterface.register("same_again", sdpa_mask)
ids = torch.arange(3, 15).reshape(2, 6)
mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]])
small = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0)
seen = {}
for family in ("llama", "falcon"):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **small), attn_implementation="sdpa"
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
        wanted = model(input_ids=ids, attention_mask=mask).logits[1, -1]
        model.config._attn_implementation = "same_again"
        found = model(input_ids=ids, attention_mask=mask).logits[1, -1]
    seen[family] = (model._supports_attention_backend, float((found - wanted).abs().max() / wanted.std()))
print({family: (flag, round(far, 3)) for family, (flag, far) in seen.items()})
assert seen["llama"][0] and seen["llama"][1] == 0, seen
assert not seen["falcon"][0] and seen["falcon"][1] > 0.01, seen
PY
echo "unchanged"
