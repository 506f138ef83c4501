"""Named protocols: which text, which unit, which averaging, which implementation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reg2rg.errors import ConfigError
from reg2rg.registry import did_you_mean

Smoothing = Literal["hf", "lin-och", "none"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How numbers are made of texts.

    Attributes:
        name: as given to ``--protocol``.
        text: what it is, for people.
        smoothing: of BLEU (see `reg2rg.metrics.bleu`).
        bleu: ``"each"``: mean over units; ``"corpus"``: counts summed over units; ``"both"``.
        unit: ``"paragraph"``: a report's number is the mean over the paragraphs of its references where regions are
            known; ``"report"``: over whole reports.
        missing: a region that the reference describes and the prediction does not: an ``"empty"`` prediction, or
            ``"drop"`` the pair.
        silence_is_wrong: findings of a study with an unanswered region, or without a report, count as wrong unless they
            are affirmed rightly; otherwise silence denies every finding.
        recognition: ``"strict"``: full names, duplicates and unknown names are wrong; ``"published"``: first words, the
            last of duplicates counts.
        rouge_overall: print the published bootstrap median of ROUGE as well.
        left_out: regions that the published averages of recognition leave out; a further figure merges them.
    """

    name: str
    text: str
    smoothing: Smoothing
    bleu: Literal["each", "corpus", "both"]
    unit: Literal["paragraph", "report"]
    missing: Literal["empty", "drop"]
    silence_is_wrong: bool
    recognition: Literal["strict", "published"]
    rouge_overall: bool = False
    left_out: tuple[str, ...] = ()


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "strict",
            "Nothing is gained by silence. Text metrics are means over the paragraphs of the references (over whole "
            "reports where no regions are known); a missing paragraph scores 0. BLEU: 13a tokens, Lin-Och smoothing. "
            "A study that leaves a described region unanswered has every finding wrong that it does not rightly "
            "affirm. Recognition compares full region names; repeated, unknown and missing names are wrong.",
            smoothing="lin-och",
            bleu="each",
            unit="paragraph",
            missing="empty",
            silence_is_wrong=True,
            recognition="strict",
        ),
        Protocol(
            "paper",
            "As the published Reg2RG files were made: BLEU one sample at a time with one added to every order, then "
            "mean and standard deviation, and the corpus figure ('Overall'); METEOR of NLTK; ROUGE without stemmer, "
            "its overall figure the median of 1,000 resamples; CIDEr-D on raw words with frequencies from the "
            "references. By region, pairs with an empty side are dropped. Recognition compares first words.",
            smoothing="hf",
            bleu="both",
            unit="report",
            missing="drop",
            silence_is_wrong=False,
            recognition="published",
            rouge_overall=True,
            left_out=("lung", "pleura"),
        ),
        Protocol(
            "corpus",
            "What most papers mean: corpus BLEU without smoothing on 13a tokens (sacreBLEU's figure), other text "
            "metrics as means over reports; a missing report or region is an empty text; silence denies every finding.",
            smoothing="none",
            bleu="corpus",
            unit="report",
            missing="empty",
            silence_is_wrong=False,
            recognition="strict",
        ),
        Protocol(
            "vlm3d",
            "The figures of the VLM3D challenge's report-generation task on whole reports: BLEU (corpus), METEOR, "
            "ROUGE-L and CRG over the 18 labels. Its pages name the metrics and no implementation; these are the "
            "library's. The challenge takes labels from RadBERT: give its weights with --labeler.",
            smoothing="none",
            bleu="corpus",
            unit="report",
            missing="empty",
            silence_is_wrong=False,
            recognition="strict",
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        ConfigError: none has it; the message lists them.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    raise ConfigError(
        f"there is no protocol '{name}'.{did_you_mean(name, list(PROTOCOLS))} Known: {', '.join(PROTOCOLS)}"
    )
