#!/usr/bin/env bash
# Swin of MONAI has other gradients each time on a CPU with two threads, whatever is seeded; its ViT has the same.
#
# MONAI 1.5.1, torch 2.13.0, CPU, two threads: eight backward passes of one network on one input, nothing random in it.
# Guess: gradients of one network on one input are equal; only GPUs sum in an order of their own.
# Seen:  SwinUNETR has two or more different ones: position biases are looked up as `table[index]`, whose gradient the CPU
#        adds up in any order. ViT, without such a table, has one. With torch.use_deterministic_algorithms(True), or with
#        one thread, so has SwinUNETR.
# So:    a seed does not give the same weights for such networks; trainer.deterministic: true does. Our own look-ups keep
#        an order (reg2rg.models.lookup.take).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 monai==1.5.1 einops==0.8.1
cat > "$work/ask.py" <<'PY'
import warnings

warnings.simplefilter("ignore")
import torch
from monai.networks.nets import SwinUNETR, ViT


def different(network, volume):
    found = set()
    for _ in range(8):
        network.zero_grad()
        output = network(volume)
        output = output[0] if isinstance(output, tuple) else output
        (output * torch.linspace(-1, 1, output.shape[-1])).sum().backward()
        found.add(b"".join(p.grad.numpy().tobytes() for p in network.parameters() if p.grad is not None))
    return "one" if len(found) == 1 else "several"


torch.manual_seed(0)
swin = SwinUNETR(in_channels=1, out_channels=2, feature_size=24).eval()
vit = ViT(1, (64, 64, 64), (16, 16, 16), hidden_size=48, mlp_dim=96, num_layers=2, num_heads=4).eval()
volume = torch.rand(1, 1, 64, 64, 64)
for threads, exact in ((2, False), (2, True), (1, False)):
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(exact)
    order = "deterministic" if exact else "as it comes"
    print(threads, "threads,", order + ":", "Swin", different(swin, volume), "ViT", different(vit, volume))
PY
"$work/venv/bin/python" "$work/ask.py" | tee "$work/said"
diff "$work/said" - <<'SAID'
2 threads, as it comes: Swin several ViT one
2 threads, deterministic: Swin one ViT one
1 threads, as it comes: Swin one ViT one
SAID
echo "unchanged"
