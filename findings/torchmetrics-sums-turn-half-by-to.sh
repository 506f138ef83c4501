#!/usr/bin/env bash
# A metric inside a model keeps its sums in float32 under `.half()` and `.bfloat16()`, but not under `.to(dtype)`.
#
# torchmetrics 1.9.0, torch 2.13.0. Lightning's precision "bf16-true" casts a module by `.to(dtype)`.
# Guess: the three are one: a metric's states are left alone, as its documentation says of `.half()`.
# Seen:  `.bfloat16()` leaves the sum float32; `.to(torch.bfloat16)` casts it, and a count then stops at 256, because
#        257 is no bfloat16: after 1,000 updates of 1 the sum is 256.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 torchmetrics==1.9.0
"$work/venv/bin/python" - <<'PY'
import torch
from torchmetrics import SumMetric


def count(cast):
    model = torch.nn.ModuleList([SumMetric()])
    cast(model)
    for _ in range(1000):
        model[0].update(torch.tensor(1.0))
    return str(model[0].sum_value.dtype), float(model[0].compute())


found = {
    "as it is": count(lambda model: model),
    ".bfloat16()": count(lambda model: model.bfloat16()),
    ".to(torch.bfloat16)": count(lambda model: model.to(torch.bfloat16)),
}
for name, (dtype, total) in found.items():
    print(f"{name}: {dtype}, 1,000 updates give {total:g}")
assert found["as it is"] == found[".bfloat16()"] == ("torch.float32", 1000.0), found
assert found[".to(torch.bfloat16)"] == ("torch.bfloat16", 256.0), found
PY
echo "unchanged"
