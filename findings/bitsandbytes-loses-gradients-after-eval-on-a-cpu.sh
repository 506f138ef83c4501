#!/usr/bin/env bash
# On a CPU with AVX512-BF16 a 4-bit layer that was read once in eval mode gives no gradient to its input any more.
#
# bitsandbytes 0.50.2, torch 2.14.1, CPU. A Linear4bit (NF4) is read with a gradient asked for, before and after one
# reading in eval mode without one, as a validation makes.
# Guess: eval mode changes nothing that training sees; or backward raises.
# Seen:  that reading repacks the weight in place for another kernel, its scales rounded to bfloat16. Back in training
#        mode the packed kernel is used again, which has no backward: whatever trains below gets no gradient, with one
#        warning from torch. A width that is no multiple of the block size (64) raises in eval mode instead.
# So:    adapters on 4-bit weights stop training at the first validation, all but those of the last layers.
#        `support_avx512bf16_for_cpu = False` on each layer keeps the weights as they are.
set -euo pipefail
grep -q avx512_bf16 /proc/cpuinfo || { echo "this CPU has no AVX512-BF16"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.14.1 bitsandbytes==0.50.2
cd "$work"
cat > ask.py <<'PY'
import torch
from bitsandbytes.nn import Linear4bit, Params4bit


def layer(width):
    torch.manual_seed(0)
    made = Linear4bit(width, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    made.weight = Params4bit(torch.randn(64, width), requires_grad=False, quant_type="nf4", module=made)
    return made.to("cpu")


def gradient(made, width):
    inputs = torch.ones(3, width, requires_grad=True)
    output = made.train()(inputs)
    output.sum().backward()
    return inputs.grad


for usual in (True, False):
    made = layer(64)
    made.support_avx512bf16_for_cpu &= usual
    before = gradient(made, 64)
    with torch.no_grad():
        made.eval()(torch.ones(3, 64))
    after = gradient(made, 64)
    same = after is not None and torch.equal(after, before)
    print(f"packed kernel {'allowed' if usual else 'forbidden'}: gradient before, after: {before is not None}, {same}")
    assert before is not None and same is not usual
try:
    with torch.no_grad():
        layer(32).eval()(torch.ones(3, 32))
    raised = "nothing"
except RuntimeError as error:
    raised = str(error)
print("width 32 in eval mode:", raised)
assert "shape '[64, 0]' is invalid" in raised, raised
PY
./venv/bin/python ask.py
echo "unchanged"
