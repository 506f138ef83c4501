"""What of a model's encoders is the same at every step of a run, and by which word its tokens are known.

Tokens of a settled part can be made once (``reg2rg data encode``) and read ever after (``data.features``), if they are
known by all that decides them: the classes that made them, what these were built with, and every weight.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reg2rg.models.encoders.base import Encoder
from reg2rg.models.encoders.grids import MaskPool
from reg2rg.models.encoders.wrappers import Frozen
from reg2rg.store.encoded import Facts
from reg2rg.store.views import ViewName

RECIPE = 1
"""Raised when the same weights would give other tokens, so that what was encoded is encoded anew."""
_OF_MODULES = frozenset(vars(nn.Module()))
_OF_TRAINING = frozenset({"chunk", "restored", "dropout", "embedding_dropout", "checkpointing", "p", "inplace"})
"""Attributes that tokens in eval mode do not depend on."""
_DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.Identity)


def settled_part(encoder: Encoder) -> Encoder | str:
    """The outermost encoder in `encoder` that is settled and given the volumes as they come, or why there is none."""
    part = encoder
    while not part.settled():
        inner = getattr(part, "encoder", None)
        if isinstance(part, Frozen):
            what = "has dropout: true, so that its tokens differ" if part.dropout else "has parameters that train"
            return f"Frozen {what}"
        if not part.hands_on or not isinstance(inner, Encoder):
            return f"{type(part).__name__} is trained (expected Frozen around what is not)"
        part = inner
    return part


def settled_views(
    texture: Encoder | None, geometry: Encoder | None, global_: Encoder | str | None
) -> dict[ViewName, Encoder | str]:
    """View that an encoder looks at -> its settled part, or why its tokens cannot be made before.

    Args:
        texture: of the model.
        geometry: of the model.
        global_: of the model; ``"texture"`` shares the first.
    """
    found: dict[ViewName, Encoder | str] = {}
    pooled = isinstance(texture, MaskPool)
    if texture is not None:
        found["global" if pooled else "texture"] = settled_part(texture)
    if isinstance(global_, Encoder):
        other = "the image is encoded twice, by model.texture and by model.global_"
        found["global"] = other if pooled else settled_part(global_)
    elif global_ is not None and "texture" in found:
        found["global"] = found["texture"]
    if geometry is not None:
        masks = "MaskPool needs the masks themselves"
        found["geometry"] = masks if pooled else settled_part(geometry)
    return found


def settled_facts(
    texture: Encoder | None, geometry: Encoder | None, global_: Encoder | str | None
) -> dict[ViewName, Facts | str]:
    """View -> what is known of its settled part (`facts_of`), or why there is none; as `settled_views`."""
    known: dict[int, Facts] = {}
    found: dict[ViewName, Facts | str] = {}
    for view, part in settled_views(texture, geometry, global_).items():
        if isinstance(part, str):
            found[view] = part
        else:
            found[view] = known[id(part)] = known.get(id(part)) or facts_of(part)
    return found


def facts_of(part: Encoder) -> Facts:
    """All that decides a settled part's tokens, in plain values.

    Its classes, and the plain attributes that each was built with; the digest of every weight and buffer; the number
    and width of the tokens.
    """
    built = [
        [name, _class(module), dict(_plain(module))]
        for name, module in part.named_modules()
        if not isinstance(module, _DROPOUTS)
    ]
    return {
        "recipe": RECIPE,
        "encoders": [{"class": _class(own), **dict(_plain(own))} for own in part.modules() if isinstance(own, Encoder)],
        "built": hashlib.sha256(json.dumps(built, sort_keys=True).encode()).hexdigest(),
        "weights": _digest(part),
        "dtype": str(next((p.dtype for p in part.parameters()), torch.float32)).removeprefix("torch."),
        "tokens": part.num_tokens,
        "channels": part.out_channels,
    }


def _digest(part: nn.Module) -> str:
    """SHA-256 of every parameter and buffer, by name, type and shape."""
    digest = hashlib.sha256()
    tensors: Mapping[str, Tensor] = {**dict(part.named_parameters()), **dict(part.named_buffers())}
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # shards of FSDP
        plain = whole.to("cpu").contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)};".encode())
        digest.update(np.ascontiguousarray(plain.reshape(-1).view(torch.uint8).numpy()).data)
    return digest.hexdigest()


def _class(module: nn.Module) -> str:
    """Where its class is from; what shards a module puts a class of its own before it."""
    own = next(kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.distributed"))
    return f"{own.__module__}.{own.__qualname__}"


def _plain(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What a module was built with, as far as it keeps it."""
    for name, value in sorted(vars(module).items()):
        if name not in _OF_MODULES and name not in _OF_TRAINING:
            yield name, _as_plain(value)


def _as_plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_as_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _as_plain(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
