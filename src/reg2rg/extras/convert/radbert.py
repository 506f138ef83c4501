"""The RadBERT classifier of CT-RATE's 18 findings, as a plain sequence classifier of Hugging Face.

The published head is RoBERTa's pooler, a dense layer and tanh on the first token, and one linear layer on top. That is
`RobertaClassificationHead` to the letter: its ``dense`` is the pooler's, its ``out_proj`` the linear layer.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reg2rg.core.errors import ConfigError
from reg2rg.core.labels import FINDINGS
from reg2rg.extras.convert.formats import Format, Opened, Options, register
from reg2rg.extras.convert.key_map import Key
from reg2rg.extras.convert.writing import write_tensors

_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
_POSITIONS = "embeddings.position_ids"
_SIZES = {
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
    "dim": "hidden_size",
    "mlp": "intermediate_size",
}
"""Our names of the sizes -> RoBERTa's config."""


def _layer(name: str, weight: str, bias: str) -> list[Key]:
    return [
        Key(f"model.{name}.{kind}", shape, to=f"roberta.{name}.{kind}")
        for kind, shape in (("weight", weight), ("bias", bias))
    ]


def _keys() -> tuple[Key, ...]:
    tables = {"word": "vocab", "position": "positions", "token_type": "types"}
    block = "encoder.layer.{n}"
    return (
        *(
            Key(
                f"model.embeddings.{name}_embeddings.weight",
                f"{rows} dim",
                f"roberta.embeddings.{name}_embeddings.weight",
            )
            for name, rows in tables.items()
        ),
        *_layer("embeddings.LayerNorm", "dim", "dim"),
        *(
            key
            for name in ("query", "key", "value")
            for key in _layer(f"{block}.attention.self.{name}", "dim dim", "dim")
        ),
        *_layer(f"{block}.attention.output.dense", "dim dim", "dim"),
        *_layer(f"{block}.attention.output.LayerNorm", "dim", "dim"),
        *_layer(f"{block}.intermediate.dense", "mlp dim", "mlp"),
        *_layer(f"{block}.output.dense", "dim mlp", "dim"),
        *_layer(f"{block}.output.LayerNorm", "dim", "dim"),
        Key("model.pooler.dense.weight", "dim dim", to="classifier.dense.weight"),
        Key("model.pooler.dense.bias", "dim", to="classifier.dense.bias"),
        Key("classifier.weight", f"{len(FINDINGS)} dim", to="classifier.out_proj.weight"),
        Key("classifier.bias", f"{len(FINDINGS)}", to="classifier.out_proj.bias"),
        Key(f"model.{_POSITIONS}", "1 positions", why="0, 1, 2, ...: transformers counts anew", optional=True),
    )


def _adapt(format_: Format, options: Options) -> Format:
    if options.backbone is None:
        return format_
    return replace(format_, layers={"n": int(_config(options.backbone).num_hidden_layers)})


def _check(opened: Opened) -> list[str]:
    faults = []
    if f"model.{_POSITIONS}" in opened.account.named:
        found = opened.tensor(f"model.{_POSITIONS}")
        if not torch.equal(found[0], torch.arange(found.shape[1]).to(found.dtype)):
            faults.append(f"{_POSITIONS} does not count 0, 1, 2, ... (expected that: it would be lost)")
    if opened.options.backbone is not None:
        config = _config(opened.options.backbone)
        faults += [
            f"{name} is {opened.account.sizes[ours]} (expected {getattr(config, name)}, as config.json says)"
            for ours, name in _SIZES.items()
            if getattr(config, name) != opened.account.sizes[ours]
        ]
    return faults


def _config(backbone: Path) -> Any:
    from transformers import AutoConfig

    if not (backbone / "config.json").is_file():
        raise ConfigError(
            f"--backbone {backbone}: no config.json there (expected the folder of RadBERT-RoBERTa-4m with its config "
            "and tokenizer). Fix: the path"
        )
    try:
        config = AutoConfig.from_pretrained(backbone, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--backbone {backbone}: config.json cannot be read ({error}). Fix: copy it again") from None
    if config.model_type != "roberta":
        raise ConfigError(f"--backbone {backbone}: a {config.model_type} (expected roberta). Fix: the path")
    return config


def _write(opened: Opened, tensors: Mapping[str, Tensor], folder: Path) -> Mapping[str, Any]:
    """A folder that ``AutoModelForSequenceClassification`` reads, with the tokenizer beside it."""
    backbone = opened.options.backbone
    if backbone is None:
        raise ConfigError(
            "--from radbert needs the config and the tokenizer of the backbone. Fix: --backbone FOLDER, with the files "
            "of RadBERT-RoBERTa-4m"
        )
    config = _config(backbone)
    config.architectures = ["RobertaForSequenceClassification"]
    config.id2label = dict(enumerate(FINDINGS))
    config.label2id = {label: i for i, label in enumerate(FINDINGS)}
    config.problem_type = "multi_label_classification"
    config.dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    config.save_pretrained(folder)
    copied = [name for name in _TOKENIZER if (backbone / name).is_file()]
    for name in copied:
        shutil.copyfile(backbone / name, folder / name)
    _check_tokenizer(folder, backbone, copied)
    write_tensors(tensors, folder)
    return {"labels": list(FINDINGS)}


def _check_tokenizer(folder: Path, backbone: Path, copied: list[str]) -> None:
    """A tokenizer must be there, and its ids must be rows of the model; transformers makes an empty one of no file."""
    from transformers import AutoConfig, AutoTokenizer

    reason = ""
    if "tokenizer.json" in copied or {"vocab.json", "merges.txt"} <= set(copied):
        try:
            tokens = len(AutoTokenizer.from_pretrained(folder, local_files_only=True))
        except Exception as error:  # the parsers of tokenizers raise bare exceptions
            reason = f"; {str(error).splitlines()[0]}"
        else:
            rows = AutoConfig.from_pretrained(folder, local_files_only=True).vocab_size
            if tokens <= rows:
                return
            reason = f"; it has {tokens} tokens, the model embeds {rows}"
    raise ConfigError(
        f"--backbone {backbone}: no tokenizer can be made of its files ({', '.join(copied) or 'none'}; expected "
        f"tokenizer.json, or vocab.json and merges.txt{reason}). Fix: download them there"
    )


RADBERT = register(
    Format(
        name="radbert",
        file="RadBertClassifier.pth, the classifier of CT-RATE's 18 findings",
        keys=_keys(),
        layers={"n": 12},
        sizes={"dim": 768, "mlp": 3072, "positions": 514},
        adapt=_adapt,
        check=_check,
        write=_write,
    )
)
