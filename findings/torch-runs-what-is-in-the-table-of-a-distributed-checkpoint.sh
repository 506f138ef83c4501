#!/usr/bin/env bash
# Reading a checkpoint of torch.distributed.checkpoint runs what its `.metadata` says, `weights_only` or not.
#
# torch 2.14.1, CPU, one process. `save` writes a folder; its `.metadata` is replaced by a pickle that calls `print`; `load`
# fills one tensor from it.
# Guess: an error, and nothing is run: tensors are read with `weights_only=True`, and no value but a tensor is asked for.
# Seen:  `FileSystemReader.read_metadata` takes `pickle.load`, so the text is printed. What is raised then, as for every
#        failure of `load`, is a `CheckpointException`, a BaseException that no `except Exception` catches.
# So:    a folder from elsewhere wants a reader whose `read_metadata` makes the records of the format and nothing else.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy
cd "$work"
./venv/bin/python - 2>/dev/null > seen <<'PY'
import os
import pickle
import tempfile

import torch
from torch.distributed.checkpoint import load, save


class Harm:
    def __reduce__(self):
        return print, ("run while reading",)


with tempfile.TemporaryDirectory() as folder:
    save({"weight": torch.ones(2)}, checkpoint_id=folder, no_dist=True)
    with open(os.path.join(folder, ".metadata"), "wb") as stream:
        pickle.dump(Harm(), stream)
    try:
        load({"weight": torch.zeros(2)}, checkpoint_id=folder, no_dist=True)
    except BaseException as error:
        print(type(error).__name__, "Exception" if isinstance(error, Exception) else "BaseException alone")
PY
cat seen
grep -q "run while reading" seen
grep -q "CheckpointException BaseException alone" seen
echo "unchanged"
