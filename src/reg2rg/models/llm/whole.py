"""A language model's weights: all that the architecture has and nothing else, or an error that names what is wrong.

Hugging Face fills what a file lacks with random numbers and drops what it cannot place, with a warning alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import nn

from reg2rg.core.documents import DocumentError, read_json
from reg2rg.core.errors import ConfigError
from reg2rg.core.hub import looks_like_hub_id
from reg2rg.models.llm.loading import LOADING_ERRORS, trouble
from reg2rg.models.llm.naming import is_adapter, plain_name

_MADE_ANEW = re.compile(
    r"(^|\.)(masked_bias|causal_mask|inv_freq|cos_cached|sin_cached|position_ids|"
    r"(attn|attention|self_attention|crossattention)\.bias)$"
)
"""Masks, positions and frequencies that older versions stored beside what was learnt. Most families list theirs."""
_SHOWN = 4
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ROW = re.compile(r"^(\S.*?) *\| (?:CONVERSION|MISSING)", re.MULTILINE)


def load_whole(path: str, options: Mapping[str, Any]) -> Any:
    """A causal language model with all of its weights.

    What its family declares to be made anew may be missing, and what it declares to leave out may be there; of weights
    that are tied one is enough.

    Args:
        path: folder or hub id.
        options: of ``from_pretrained``.

    Raises:
        ConfigError: it cannot be had or read; weights that are missing, left over, of another shape, or behind a
            prefix, by name.
    """
    from transformers import AutoModelForCausalLM

    where = Path(path).expanduser()
    with _reports() as told:
        try:
            model, found = AutoModelForCausalLM.from_pretrained(
                str(where) if where.exists() else path,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # so that all faults come together; none is let through
                output_loading_info=True,
                **options,
            )
        except LOADING_ERRORS as error:
            raise trouble(path, error) from None
        except RuntimeError:
            # parts that cannot be joined, or a packed weight that cannot even be made up
            names = sorted({name for text in told for name in _ROW.findall(_ANSI.sub("", text))})
            if not names:
                raise
            raise ConfigError(
                f"language model {path}: its files do not hold all parts of {_listed(names)}, such as every expert or "
                "what 4-bit weights are unpacked with. Fix: take the whole folder from its source again"
            ) from None
    unexpected = sorted(name for name in found["unexpected_keys"] if not _MADE_ANEW.search(name))
    shapes = {name: (tuple(has), tuple(wants)) for name, has, wants in found["mismatched_keys"]}
    shapes |= _packed_shapes(model)
    if found["missing_keys"] or unexpected or shapes:
        own = {name: tuple(weight.shape) for name, weight in model.named_parameters(remove_duplicate=False)}
        raise _misfit(path, type(model).__name__, own, sorted(found["missing_keys"]), unexpected, shapes)
    return model


def _packed_shapes(model: nn.Module) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Layers whose 4-bit weights are of another shape: these alone are packed without a look at it."""
    found: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if isinstance(module, nn.Linear) and state is not None:
            has, wants = tuple(state.shape), (module.out_features, module.in_features)
            if has != wants:
                found[f"{name}.weight"] = (has, wants)
    return found


def refuse_adapter(path: str, revision: str | None) -> None:
    """Refuse the folder of an adapter.

    It would have to be looked for in three places from then on: the fingerprint, the copy in a model's folder and 4-bit
    weights all go by the files of one whole model.

    Raises:
        ConfigError: says whose adapter it is, and the command that folds it into its model.
    """
    from transformers.utils import find_adapter_config_file

    where, found = Path(path).expanduser(), None
    with suppress(*LOADING_ERRORS):  # what cannot be had is said when the model is read
        found = find_adapter_config_file(str(where) if where.exists() else path, revision=revision)
    if found is None:
        return
    try:
        base = str(read_json(found)["base_model_name_or_path"] or "")
    except (OSError, DocumentError, KeyError, TypeError):
        base = ""
    inside = where / base if base and where.is_dir() else None
    here = str(inside) if inside is not None and inside.exists() and not Path(base).exists() else base
    gone = not here or not (Path(here).expanduser().exists() or looks_like_hub_id(here))
    lost = f" {base}, which is not here" if base else " a model that it does not name"
    take = "PATH_OF_THAT_MODEL" if gone else here
    words = path if (where / "tokenizer_config.json").is_file() else take
    also = (
        "; or, where the folder's own weights hold the adapter already, remove adapter_config.json"
        if (where / "config.json").is_file()
        else ""
    )
    raise ConfigError(
        f"language model {path}: adapter_config.json makes it an adapter of{lost if gone else f' {here}'} (expected a "
        'whole model). Fix: fold it in and name the new folder: python -c "from peft import PeftModel; '
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        f"PeftModel.from_pretrained(M.from_pretrained('{take}'), '{path}').merge_and_unload()"
        ".save_pretrained('merged'); "
        f"T.from_pretrained('{words}').save_pretrained('merged')\"{also}"
    )


def require_tied(base: Any, path: str) -> None:
    """Refuse weights that are to be trained and that files hold apart though the config ties them.

    What is saved would be read back into one tensor.

    Raises:
        ConfigError: names them.
    """
    tied = base.get_expanded_tied_weights_keys(all_submodels=True)
    apart = [(one, other) for one, other in tied.items() if one not in base.all_tied_weights_keys]
    if apart:
        one, other = apart[0]
        raise ConfigError(
            f"language model {path}: config.json ties {one} to {other}, the files hold other numbers for each. "
            "Fix: tie_word_embeddings: false in config.json"
        )


def _misfit(
    path: str,
    architecture: str,
    own: Mapping[str, tuple[int, ...]],
    missing: Collection[str],
    unexpected: Collection[str],
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> ConfigError:
    faults = {
        f"{len(missing)} of {len(own)} missing": [f"{name} {own.get(name, '')}".rstrip() for name in missing],
        f"{len(unexpected)} unexpected": list(unexpected),
        f"{len(shapes)} of another shape": [
            f"{name} is {has}, expected {wants}" for name, (has, wants) in sorted(shapes.items())
        ],
    }
    told = "; ".join(f"{kind}: {_listed(names)}" for kind, names in faults.items() if names)
    return ConfigError(
        f"language model {path}: its weights do not fit {architecture}, and what is missing would be random. {told}. "
        f"{_remedy(set(missing), unexpected, shapes)}"
    )


def _remedy(missing: set[str], unexpected: Collection[str], shapes: Collection[str]) -> str:
    """What probably happened, and the way out."""
    if any(is_adapter(name) or plain_name(name) != name for name in unexpected):
        return (
            "The names are those inside peft's wrapper (base_model.model.). Fix: save the model without it: "
            "model.merge_and_unload().save_pretrained(FOLDER)"
        )
    if prefix := _prefix(missing, unexpected):
        return (
            f"Every name starts with '{prefix}', as a wrapper writes it. Fix: save the model inside the wrapper with "
            "save_pretrained"
        )
    if missing == {"lm_head.weight"} and not shapes:
        return (
            "The model was saved without its head. Fix: save it from AutoModelForCausalLM, or, if its head is the "
            "table of embeddings, set tie_word_embeddings: true in config.json"
        )
    return (
        "Fix: take the whole folder from its source again, config.json and weights of one model; or save the model "
        "again with save_pretrained"
    )


def _prefix(missing: set[str], unexpected: Collection[str]) -> str:
    """What stands before every name, if that is all that is wrong with them."""
    first = min(unexpected, default="")
    ends = (place + 1 for place, letter in enumerate(first) if letter == "." and first[place + 1 :] in missing)
    prefix = first[: next(ends, 0)]
    same = all(name.startswith(prefix) and name.removeprefix(prefix) in missing for name in unexpected)
    return prefix if same else ""


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


@contextmanager
def _reports() -> Iterator[list[str]]:
    """Collect the tables of transformers about keys instead of printing them: what is wrong is said in the error."""
    told: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        report = "LOAD REPORT" in record.getMessage()
        if report:
            told.append(record.getMessage())
        return not report and record.levelno >= level

    logger = logging.getLogger("transformers.modeling_utils")
    level, own = logger.getEffectiveLevel(), logger.level
    logger.addFilter(keep)
    logger.setLevel(min(level, logging.WARNING - 1))  # at WARNING itself transformers warns of tensor parallelism
    try:
        yield told
    finally:
        logger.setLevel(own)
        logger.removeFilter(keep)
