"""A tiny language model of LLaMA's architecture, made from report text: for demos and tests, on any machine."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from reg2rg.core.errors import ConfigError
from reg2rg.core.files import naming, write_json
from reg2rg.core.report import write_paragraph, write_report
from reg2rg.evaluation.labelers import Labeler
from reg2rg.extras.tiny_llm.documents import DocumentWriter, stated_findings
from reg2rg.extras.tiny_llm.induction_init import CUE_OFFSET, start_lookup
from reg2rg.extras.tiny_llm.pretraining import Schedule, pretrain
from reg2rg.models.cues import cue_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

RECORD = "pretraining.json"
"""File beside the weights: settings and learning curve."""
_ASCII = [chr(code) for code in range(33, 127)]
_SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
_FEWEST = len(_SPECIAL) + len(_ASCII) + 1  # and the mark before words


def train_tokenizer(texts: Sequence[str], vocab_size: int = 1000) -> PreTrainedTokenizerFast:
    """Train a tokenizer: words where they are frequent, digits and punctuation one by one, distinct special tokens.

    Every printable ASCII character is in the vocabulary, so that text unlike the training text still gets through.

    Args:
        texts: what it should write well.
        vocab_size: most tokens; fewer are made when the texts have fewer words.

    Raises:
        ConfigError: too few tokens to write any text.
    """
    if vocab_size < _FEWEST:
        raise ConfigError(
            f"vocab_size is {vocab_size} (expected {_FEWEST} or more: printable ASCII and {len(_SPECIAL)} special "
            "tokens). Fix: 1000 suits demos"
        )
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(_SPECIAL.values()), initial_alphabet=_ASCII, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **_SPECIAL)


def build_tiny_llama(
    reports: Sequence[Mapping[str, str]],
    out: str | Path,
    hidden_size: int = 128,
    layers: int = 3,
    heads: int = 8,
    head_dim: int = 32,
    vocab_size: int = 1000,
    instruction: str = "",
    prompt_texts: Sequence[str] = (),
    image_prefix: str = "",
    schedule: Schedule | None = None,
    seed: int = 0,
    labeler: Labeler | None = None,
) -> Path:
    """Make a tokenizer and a model from the reports of the training split, and save them in Hugging Face's layout.

    The model starts with the look-up of `reg2rg.extras.tiny_llm.induction_init` and, unless the schedule has no steps,
    is trained on documents of report text (`reg2rg.extras.tiny_llm.documents`). It never sees an image.

    Args:
        reports: region -> text of each training study.
        out: folder to write; holds model, tokenizer and `RECORD` afterwards.
        hidden_size: width E.
        layers: at least two; a third lets a whole paragraph look up.
        heads: of attention.
        head_dim: width of a head.
        vocab_size: most tokens.
        instruction: the prompt's, which documents then show too.
        prompt_texts: other text of prompts that the tokenizer should write in few tokens.
        image_prefix: the prompt's text before the whole image, for models that see no regions; ``""`` for others.
        schedule: of the pre-training; ``Schedule(steps=0)`` for none.
        seed: of weights and documents.
        labeler: reads the findings that documents name, for models with cues; ``None`` names none.

    Returns:
        `out`.

    Raises:
        ConfigError: no report, or sizes that cannot be.
    """
    if layers < 2 or hidden_size % heads or head_dim % 2:
        raise ConfigError(
            f"a language model of width {hidden_size} with {layers} layers and {heads} heads of {head_dim} (expected "
            "two layers or more, a width that is a multiple of the heads, and heads of even width). Fix: other sizes"
        )
    reports = [report for report in reports if report]
    if not reports:
        raise ConfigError("no report to make a language model from. Fix: a data set whose training split has reports")
    schedule = schedule or Schedule()
    texts = [write_report(list(report), list(report.values())) for report in reports]
    if labeler is not None:  # as often as prompts have them: words of labels in few tokens are looked up as a whole
        stated = stated_findings(reports, labeler)
        texts += [cue_text(0, stated[pair]) for report in reports for pair in report.items() if pair in stated]
    tokenizer = train_tokenizer([*texts, instruction, *prompt_texts] + [instruction, *prompt_texts] * 3, vocab_size)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _llama(tokenizer, hidden_size, layers, heads, head_dim)
        openings = [write_paragraph(slot, "", "").partition(":")[0].rstrip() for slot in range(10)]
        ids = tokenizer(openings, add_special_tokens=False)["input_ids"]
        ends = [] if labeler is None else tokenizer.convert_tokens_to_ids([".", ":"])
        start_lookup(model, generator, [row[-2] for row in ids], ids[0][-1 - CUE_OFFSET], ends=ends)
        curve = []
        if schedule.steps:
            cut = max(1, len(reports) // 10)  # the curve is of reports that are not trained on, where there are enough
            train, held_out = (reports[cut:], reports[:cut]) if len(reports) >= 20 else (reports, reports)
            writer, test = (
                DocumentWriter(tokenizer, part, instruction, image_prefix=image_prefix, labeler=labeler)
                for part in (train, held_out)
            )
            curve = pretrain(model, writer, schedule, seed, held_out=test)
    sizes = {"hidden_size": hidden_size, "layers": layers, "heads": heads, "head_dim": head_dim}
    sizes |= {"vocab_size": len(tokenizer), "parameters": sum(p.numel() for p in model.parameters())}
    record = {"reports": len(reports), "seed": seed, **sizes, "schedule": asdict(schedule), "curve": curve}
    return _save(model, tokenizer, record, Path(out))


def _llama(tokenizer: Any, hidden_size: int, layers: int, heads: int, head_dim: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=-(-hidden_size * 8 // 3 // 32) * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=head_dim,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        attention_bias=True,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def _save(model: Any, tokenizer: Any, record: Mapping[str, Any], out: Path) -> Path:
    """Write beside `out` first: a kill leaves no half model there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with naming(out), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
        folder = Path(name)
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / RECORD, record)
        out.mkdir(exist_ok=True)
        for file in folder.iterdir():
            file.replace(out / file.name)
    log.info("language model of %d parameters in %s", record["parameters"], out)
    return out
