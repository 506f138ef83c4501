#!/usr/bin/env bash
# Lightning's averaging of weights changes what is no weight: a mask of flags, and what a module measures in validation.
#
# lightning 2.6.6, torch 2.13.0. `EMAWeightAveraging` as it is by default (`use_buffers=True`).
# Guess: buffers of integers and flags are copied, as there is no average of them; what a module writes into a buffer at
#        the end of validation stays beside the averaged weights that were validated.
# Seen:  flags that were [True, False] and become [False, True] are averaged to [True, True], for good: any share above 0
#        is cast to True. A count is averaged and cut off. What `on_validation_epoch_end` of a module writes goes to the
#        weights of the last step, for the callback has taken its average out of the model by then; at the end of
#        training the average is put back, with the buffer of before: what was measured is gone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.13.0 lightning==2.6.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("count", torch.zeros(1, dtype=torch.long))
        self.register_buffer("measured", torch.zeros(1))

    def training_step(self, batch, step):
        self.count += 1
        if step == 2:
            self.flags.copy_(torch.tensor([False, True]))
        return self.layer(batch).sum()

    def validation_step(self, batch, step):
        pass

    def on_validation_epoch_end(self):
        self.measured.fill_(7.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trained(callbacks):
    torch.manual_seed(0)
    model = Model()
    trainer = L.Trainer(
        max_epochs=1, callbacks=callbacks, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )
    trainer.fit(model, torch.utils.data.DataLoader(torch.randn(6, 2)), torch.utils.data.DataLoader(torch.randn(1, 2)))
    return model.flags.tolist(), int(model.count), float(model.measured)


plain, averaged = trained([]), trained([EMAWeightAveraging(decay=0.9)])
print("flags, steps counted, measured in validation:", plain, "averaged:", averaged)
assert plain == ([False, True], 6, 7.0), plain
assert averaged == ([True, True], 1, 0.0), averaged
PY
echo "unchanged"
