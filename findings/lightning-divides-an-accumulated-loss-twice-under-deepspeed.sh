#!/usr/bin/env bash
# Gradient accumulation under Lightning's DeepSpeedStrategy: gradients are too small by the number of batches.
#
# lightning 2.6.6, deepspeed 0.19.8, torch 2.14.1, CPU over gloo, one process. SGD with a rate of 1 on a loss whose
# gradient is 1; `accumulate_grad_batches` 1 and 4. Lightning refuses DeepSpeed on CPUs, which a subclass lifts.
# Guess: the weights move by 1 in the first step, whatever is accumulated, as without DeepSpeed.
# Seen:  by 1, and by 0.25 with four batches: Lightning divides the loss by 4 before it hands it to `engine.backward`,
#        which divides by `gradient_accumulation_steps`, set to 4 by Lightning. AdamW hides it, but for its eps; a limit
#        on the norm of gradients takes hold four times too late.
# So:    `scale_wrt_gas=False` belongs into that call.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.14.1 lightning==2.6.6
DS_BUILD_OPS=0 "$work/venv/bin/python" -m pip install --quiet deepspeed==0.19.8
cd "$work"
MASTER_ADDR=127.0.0.1 MASTER_PORT=29611 LOCAL_RANK=0 RANK=0 WORLD_SIZE=1 ./venv/bin/python - <<'PY'
import warnings

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy

warnings.filterwarnings("ignore")


class OnCpu(DeepSpeedStrategy):  # Lightning gives DeepSpeed to GPUs alone
    root_device = torch.device("cpu", 0)
    setup_environment = DDPStrategy.setup_environment

    def setup_distributed(self):
        self.set_world_ranks()
        self._init_deepspeed_distributed()


class Two(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(4))

    def training_step(self, batch, batch_idx):
        return (self.weight * batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def moved(strategy, accumulate):
    module = Two()
    run = L.Trainer(
        accelerator="cpu", devices=1, strategy=strategy, max_steps=1, accumulate_grad_batches=accumulate, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, precision="32-true",
    )
    run.fit(module, torch.utils.data.DataLoader(torch.ones(8, 4), batch_size=1))
    return -float(module.weight.detach()[0])


def zero():
    return OnCpu(process_group_backend="gloo", logging_batch_size_per_gpu=1)


found = {accumulate: (moved("auto", accumulate), moved(zero(), accumulate)) for accumulate in (1, 4)}
print({accumulate: f"one process moves by {a:g}, DeepSpeed by {b:g}" for accumulate, (a, b) in found.items()})
assert found[1] == (1, 1), found
assert found[4] == (1, 0.25), found
PY
echo "unchanged"
