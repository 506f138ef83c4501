"""The RadBERT classifier of CT-RATE, which published clinical efficacy is made with: a RoBERTa that gives 18 labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from reg2rg.core.errors import ConfigError
from reg2rg.core.hub import local_folder, looks_like_hub_id
from reg2rg.core.labels import FINDINGS
from reg2rg.core.types import PositiveInt
from reg2rg.evaluation.labelers.base import LABELERS, Labeler, some, stack

THRESHOLD = 0.5
MAX_TOKENS = 512
_UNREADABLE = (OSError, ValueError, SafetensorError)
_HUB_FILES = ("*.json", "*.safetensors", "merges.txt")  # no pickles


@LABELERS.register
class RadBertLabeler(Labeler):
    """Labels by a RoBERTa classifier: RadBERT as CT-RATE trained it, or any sequence classifier with these labels.

    Args:
        path: one of: a folder of a Hugging Face sequence classifier, or its hub id as text; a folder of a backbone
            (config and tokenizer) that also holds one ``.pth`` file of classifier weights; such a ``.pth`` file itself.
            The published file ``RadBertClassifier.pth`` has the keys ``model.*`` and ``classifier.*``; a file with
            ``classifier.*`` only goes with the weights of the backbone's folder.
        batch_size: texts that go through the model together. It does not change the labels.
        device: where the model runs; ``None`` takes a CUDA device if there is one.
        backbone: folder with ``config.json`` and the tokenizer; by default the folder of `path`.

    Raises:
        ConfigError: files that are missing, or weights that do not fit: all keys that are missing, unknown or of
            another shape, in one message.
    """

    labels: tuple[str, ...] = FINDINGS

    def __init__(
        self,
        path: str | Path,
        batch_size: PositiveInt = 32,
        device: str | torch.device | None = None,
        backbone: str | Path | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, expected 1 or more texts a batch")
        if isinstance(path, str) and path.count("/") == 1 and looks_like_hub_id(path):
            path = local_folder(path, "classifier", patterns=_HUB_FILES)
        weights, folder = _locate(Path(path), Path(backbone) if backbone is not None else None)
        self.name = "radbert"
        self.batch_size = batch_size
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._tokenizer = _load_tokenizer(folder)
        self._model: torch.nn.Module
        if weights is None:
            self._model, self._order = _load_sequence_classifier(folder)
        else:
            self._model, self._order = _load_published(weights, folder), list(range(len(self.labels)))
        self._model.to(self.device).eval()
        self._tokens = _token_limit(folder)
        self.definition = (
            f"A label is present if the RoBERTa classifier {(weights or folder).name} gives it a sigmoid of at least "
            f"{THRESHOLD} on the first {self._tokens} tokens of the text."
        )
        self._known: dict[str, NDArray[np.bool_]] = {}

    def label(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each label is present in each text, ``(texts, labels)``."""
        # Texts of like length together: batches are padded to their longest text only.
        new = sorted({text for text in texts if text not in self._known}, key=lambda text: (len(text), text))
        for start in range(0, len(new), self.batch_size):
            batch = new[start : start + self.batch_size]
            self._known.update(zip(batch, self.probabilities(batch) >= THRESHOLD, strict=True))
        return stack([self._known[text] for text in texts], len(self.labels))

    def probabilities(self, texts: Sequence[str], *, pad_to_limit: bool = False) -> NDArray[np.float32]:
        """Sigmoid of each label for texts that go through the model as one batch, ``(texts, labels)``.

        Args:
            texts: at least one text.
            pad_to_limit: pad to the full length, as the published script does, not to the longest text. Padding is
                masked, so the labels are the same.
        """
        encoded = self._tokenizer(
            list(texts),
            padding="max_length" if pad_to_limit else "longest",
            truncation=True,
            max_length=self._tokens,
            split_special_tokens=True,  # "</s>" in a text is four characters
            return_tensors="pt",
        )
        ids, mask = encoded["input_ids"].to(self.device), encoded["attention_mask"].to(self.device)
        with torch.inference_mode():
            if isinstance(self._model, torch.nn.ModuleDict):
                pooled = self._model["model"](input_ids=ids, attention_mask=mask).pooler_output
                logits = self._model["classifier"](pooled)
            else:
                logits = self._model(input_ids=ids, attention_mask=mask).logits
            result: NDArray[np.float32] = logits.float().sigmoid()[:, self._order].cpu().numpy()
        return result


def _locate(path: Path, backbone: Path | None) -> tuple[Path | None, Path]:
    """The file of classifier weights, if the model is not a plain sequence classifier, and the backbone's folder."""
    if not path.exists():
        raise ConfigError(
            f"no classifier at {path}. Expected the folder of a sequence classifier, or RadBertClassifier.pth beside "
            "the backbone's config.json and tokenizer. Fix: correct the path, or use the rules, which need no weights"
        )
    weights: Path | None = path
    folder = backbone or path.parent
    if path.is_dir():
        files = sorted(path.glob("*.pth"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise ConfigError(f"{path} holds {len(files)} files of weights: {names}. Expected one. Fix: name the file")
        weights, folder = (files[0] if files else None), backbone or path
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} holds no config.json. Expected the folder of the backbone (RadBERT-RoBERTa-4m) with its config "
            "and tokenizer. Fix: give that folder as backbone (--labeler-backbone)"
        )
    return weights, folder


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True)


def _token_limit(folder: Path) -> int:
    """Tokens that the model takes: RoBERTa's positions start behind the padding's."""
    config = _config(folder)
    positions = int(config.max_position_embeddings)
    return min(MAX_TOKENS, positions - int(config.pad_token_id) - 1 if config.model_type == "roberta" else positions)


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no tokenizer in {folder}: {error}. Expected the tokenizer of the backbone beside its config.json. Fix: "
            "copy its files there, or set backbone"
        ) from None
    pad = _config(folder).pad_token_id
    if tokenizer.pad_token_id != pad:
        raise ConfigError(
            f"{folder}: the tokenizer pads with id {tokenizer.pad_token_id}, the model expects {pad}. Fix: take the "
            "tokenizer of this backbone"
        )
    return tokenizer


def _load_sequence_classifier(folder: Path) -> tuple[torch.nn.Module, list[int]]:
    """The model, and for each label the model's output that stands for it."""
    from transformers import AutoModelForSequenceClassification

    config = _config(folder)
    named = [str(config.id2label[i]) for i in range(len(config.id2label))]
    heads = config.architectures or []
    if not any(str(head).endswith("ForSequenceClassification") for head in heads):
        raise ConfigError(
            f"{folder} holds {', '.join(heads) or 'an unnamed model'} and no .pth file. Expected a sequence "
            "classifier, or classifier weights beside the backbone. Fix: put RadBertClassifier.pth there, or "
            "pass it as path"
        )
    unnamed = named == [f"LABEL_{i}" for i in range(len(FINDINGS))]
    if not unnamed and sorted(named) != sorted(FINDINGS):
        raise ConfigError(
            f"{folder}: config.json names the {len(named)} labels {some(named)}. Expected the {len(FINDINGS)} labels "
            f"of CT-RATE: {', '.join(FINDINGS)}. Fix: take another classifier, or correct id2label"
        )
    try:
        model = _whole(AutoModelForSequenceClassification, folder)
    except _UNREADABLE as error:
        raise ConfigError(f"{folder}: weights cannot be read: {error}. Fix: take the complete folder") from None
    return model, list(range(len(FINDINGS))) if unnamed else [named.index(label) for label in FINDINGS]


def _whole(auto: Any, folder: Path, heads: tuple[str, ...] = ()) -> Any:
    """A model with all of its weights: transformers only warns of those that it made up at random.

    Args:
        auto: its class in transformers.
        folder: its files.
        heads: starts of names that may be left over.
    """
    model, info = auto.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
    )
    faults = {kind: sorted(map(str, info[f"{kind}_keys"])) for kind in ("missing", "unexpected")}
    faults["unexpected"] = [key for key in faults["unexpected"] if not _ignored(key) and not key.startswith(heads)]
    faults["of another shape"] = [
        f"{key} is {tuple(has)}, expected {tuple(wants)}" for key, has, wants in sorted(info["mismatched_keys"])
    ]
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in faults.items() if keys)
        raise ConfigError(f"{folder}: weights do not fit config.json: {listed}. Fix: take the complete folder")
    return model


def _load_published(weights: Path, folder: Path) -> torch.nn.Module:
    """The published classifier: pooled output of a RoBERTa, then one linear layer; keys model.* and classifier.*."""
    from transformers import AutoModel

    state = _read_state(weights)
    if any(key.startswith("model.") for key in state):
        body = AutoModel.from_config(_config(folder))
    else:
        try:
            body = _whole(AutoModel, folder, heads=("lm_head.", "cls.", "classifier."))
        except _UNREADABLE as error:
            raise ConfigError(
                f"{weights} holds no model.* keys and {folder} no weights of the backbone: {error}. Fix: take the "
                "whole published file, or put the backbone's weights there"
            ) from None
        state = {f"model.{key}": value for key, value in body.state_dict().items()} | state
    classifier = torch.nn.Linear(body.config.hidden_size, len(FINDINGS))
    model = torch.nn.ModuleDict({"model": body, "classifier": classifier})
    _check_keys(weights, state, model.state_dict())
    model.load_state_dict(state)
    return model


def _ignored(key: str) -> bool:
    """``position_ids`` counts 0, 1, 2, ...: older transformers saved it, newer ones make it anew."""
    return key.endswith("embeddings.position_ids")


def _read_state(weights: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its parsers raise: RuntimeError, UnpicklingError, EOFError, ...
        raise ConfigError(
            f"{weights} cannot be read as weights: {type(error).__name__}: {str(error)[:200]}. Expected a state dict "
            "of tensors, saved by torch. Fix: download the file again"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(f"{weights} holds {type(state).__name__}, expected a state dict: key -> tensor")
    return {str(key): value for key, value in state.items() if not _ignored(str(key))}


def _check_keys(weights: Path, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    shapes = [
        f"{key} is {tuple(found[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & found.keys())
        if found[key].shape != expected[key].shape
    ]
    faults = {"missing": missing, "unknown": unknown, "of another shape": shapes}
    if any(faults.values()):
        listed = "; ".join(f"{len(keys)} {kind}: {', '.join(keys)}" for kind, keys in faults.items() if keys)
        raise ConfigError(
            f"{weights} does not fit the backbone and {len(FINDINGS)} labels: {listed}. Expected the keys model.* of "
            "the backbone, classifier.weight and classifier.bias. Fix: set backbone to the folder of "
            "RadBERT-RoBERTa-4m, or download the file again"
        )
