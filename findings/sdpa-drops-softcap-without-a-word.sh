#!/usr/bin/env bash
# transformers 5.3.0 computes attention without the soft cap that the model's config asks for; 5.24.0 refuses.
#
# transformers 5.3.0 and 5.24.0, torch 2.13.0, CPU: the attention function that `attn_implementation="sdpa"` selects is
# called with `softcap`, as Gemma 2's layers do.
# Guess: the older release applies the cap, or raises as the newer one does.
# Seen:  5.3.0 swallows it among further keyword arguments: the output equals that without a cap. 5.24.0 raises.
# So:    a lower bound on transformers is also a bound on what is silently left out; a model with capped attention needs
#        eager attention whatever the release.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0
cat > "$work/ask.py" <<'PY'
import torch
import transformers
from transformers.integrations.sdpa_attention import sdpa_attention_forward

torch.manual_seed(0)
query, key, value = (torch.randn(1, 2, 5, 8) * 6 for _ in range(3))
layer = torch.nn.Identity()
layer.is_causal = True
plain, _ = sdpa_attention_forward(layer, query, key, value, None, scaling=1.0)
try:
    capped, _ = sdpa_attention_forward(layer, query, key, value, None, scaling=1.0, softcap=5.0)
    said = "ignored" if torch.equal(capped, plain) else "applied"
except ValueError:
    said = "refused"
print(transformers.__version__, said)
PY
for release in 5.3.0 5.24.0; do
  "$work/venv/bin/python" -m pip install --quiet "transformers==$release"
  HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/ask.py" | tee -a "$work/said"
done
diff "$work/said" - <<'SAID'
5.3.0 ignored
5.24.0 refused
SAID
echo "unchanged"
