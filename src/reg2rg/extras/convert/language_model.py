"""The base language model inside a published file, and the one that the output refers to: are they the same?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from reg2rg.core.errors import ConfigError
from reg2rg.extras.convert.checksums import MIB
from reg2rg.extras.convert.formats import Opened
from reg2rg.models.tensors import TensorSource, open_tensors
from reg2rg.pretrained.fingerprint import Fingerprint, fingerprint
from reg2rg.pretrained.folder import LanguageModelRef

_PIECE = 2**22
_STEP = 2.0**-7
"""Two roundings of one number to bfloat16, by whatever way, are no further apart."""
_SUBNORMAL = 2.0**-24


def refer_to(opened: Opened) -> tuple[LanguageModelRef, list[str]]:
    """The reference to the base language model, with a fingerprint of the weights inside the file.

    Where `Options.llm` is a folder, every number there is held against the file's.

    Returns:
        the reference, and what a user should know.

    Raises:
        ConfigError: the folder holds another model.
    """
    llm, reference, source = opened.options.llm, opened.account.reference, opened.source
    held = {name: theirs for name, theirs in reference.items() if source.entries[theirs].shape != (0,)}
    empty, vocabulary = len(reference) - len(held), opened.account.sizes.get("llm.vocab")
    inside = fingerprint(_tensors(source, held))
    folder = Path(llm).expanduser()
    if folder.is_dir():
        local = open_tensors(folder)
        beside = fingerprint(_tensors(local, {name: name for name in local if not name.endswith("inv_freq")}))
        unknown = {name: trace for name, trace in beside.tensors.items() if name in reference and name not in held}
        expected = Fingerprint({**inside.tensors, **unknown})
        _require_same(expected, beside, f"--llm {folder}", source.path.name)
        notes = _compare(opened, local, held)
        return LanguageModelRef(str(folder.resolve()), fingerprint=expected, vocabulary=vocabulary), notes
    if empty:
        note = (
            f"{empty} of {len(reference)} tensors of the base language model are empty in the file, as ZeRO 3 leaves "
            "them: there is no fingerprint, and another language model will not be noticed. --llm FOLDER makes one"
        )
        return LanguageModelRef(llm, vocabulary=vocabulary), [note]
    return LanguageModelRef(llm, fingerprint=inside, vocabulary=vocabulary), []


def _require_same(expected: Fingerprint, found: Fingerprint, where: str, file: str) -> None:
    differences = expected.differences(found)
    if differences:
        raise ConfigError(
            f"{where}: {differences.kind()}, not the model inside {file}: {'; '.join(differences.shown())}. "
            "Fix: the folder of the model that was trained on"
        )


def _tensors(source: TensorSource, names: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of the file by their names in the language model, one at a time."""
    for name, theirs in names.items():
        yield name, source[theirs]


def _compare(opened: Opened, local: TensorSource, held: dict[str, str]) -> list[str]:
    """Hold every number of the file's language model against the folder's, rounded as the file's are.

    Raises:
        ConfigError: numbers that no rounding explains; names their tensors.
    """
    rounded, wrong, numbers = [], [], 0
    for name, theirs in held.items():
        exact, near = _agree(opened.source[theirs], local[name], opened)
        numbers += opened.source.entries[theirs].numbers
        rounded += [name] if near and not exact else []
        wrong += [] if near else [name]
    if wrong:
        raise ConfigError(
            f"--llm {opened.options.llm}: {len(wrong)} of {len(held)} tensors hold other numbers than in "
            f"{opened.source.path.name}: {', '.join(wrong[:8])}{', ...' if len(wrong) > 8 else ''}. Fix: the folder of "
            "the model that was trained on"
        )
    if rounded:
        return [f"the base language model in --llm differs by roundings in {len(rounded)} of {len(held)} tensors"]
    return [
        f"all {numbers} numbers of the base language model in the file are those of --llm, rounded as the file's are"
    ]


def _agree(published: Tensor, local: Tensor, opened: Opened) -> tuple[bool, bool]:
    """Whether two tensors are equal once rounded alike, and whether roundings explain their differences."""
    exact, near, read = True, True, 0
    pairs = zip(published.reshape(-1).split(_PIECE), local.reshape(-1).split(_PIECE), strict=True)  # type: ignore[no-untyped-call]
    for one, other in pairs:
        if not torch.equal(one, other.to(one.dtype)):
            exact = False
            a, b = one.float(), other.float()
            near = near and bool(((a - b).abs() <= _STEP * torch.maximum(a.abs(), b.abs()) + _SUBNORMAL).all())
        read += one.nbytes
        opened.step(read // MIB)
        read %= MIB
    return exact, near
