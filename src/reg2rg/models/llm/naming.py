"""Names of a language model's tensors, without what adapters put around them."""

from __future__ import annotations

_WRAPPER = "base_model.model."
_LAYER = ".base_layer."


def plain_name(name: str) -> str:
    """A tensor's name as in the model's own files: without peft's wrapper and layers."""
    return name.removeprefix(_WRAPPER).replace(_LAYER, ".")


def is_adapter(name: str) -> bool:
    """Whether peft added the tensor."""
    return any(part.startswith("lora_") for part in name.split("."))
