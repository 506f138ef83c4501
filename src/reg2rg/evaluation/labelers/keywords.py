"""Clinical findings read from report text by rules: transparent, aware of denial, doubt, the past, and of sections.

It is no replacement for a trained classifier of reports. Its use is that everybody can see why it says what it says
(`KeywordReader.explain`), and that it costs nothing: every number made with it is named after it. How far it agrees
with the trained classifier of the field is in docs/concepts/labeler.md.

The way of a text: sections that tell nothing of this scan are dropped, the rest is cut into sentences, sentences into
clauses in which a denial or a doubt has its reach, and every clause is read by the rules of `finding_rules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from reg2rg.core.labels import FINDINGS
from reg2rg.evaluation.labelers import finding_rules as words
from reg2rg.evaluation.labelers.finding_rules import KEYWORDS, Rule

__all__ = ["FINDINGS", "KEYWORDS", "KeywordReader", "Mention", "Rule", "Status"]

Status = Literal["present", "uncertain", "absent"]

_CACHED_SENTENCES = 50_000

SENTENCES = re.compile(
    r"(?<=[.!?])\s+"
    r"|(?<=[a-z)]\.)(?=[A-Z])"  # a missing space: "nodules.No effusion"
    r"|\n+(?=\s*(?:[A-Z0-9•*-]|$))"  # a line that goes on in lower case is a wrapped one: "No pleural\neffusion"
    r"|;"
)
_BREAK = re.compile(
    r"\b(?:but|however|although|though|whereas|while|except(?: for)?|other than|apart from|otherwise)\b", re.IGNORECASE
)
_JOINT = re.compile(r",? and |, ", re.IGNORECASE)
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|shows?|contains?|reach(?:es|ed)?|sees?|can be|could be)\b", re.IGNORECASE
)
_OPENS = re.compile(
    r"(?:multiple|several|few|a|an|some|many|numerous|single|scattered|diffuse|both|bilateral|mild|minimal|slight(?:ly)?"
    r"|there (?:is|are|was|were))\b",
    re.IGNORECASE,
)
"""Begins an affirmation: what follows "no consolidation, multiple nodules" is not denied."""

_MANY = re.compile(r"\s*(?:multiple|several|few|a few|some|many|numerous)\b", re.IGNORECASE)
_PARENTHESIS = re.compile(r"\([^()]*(?:\)|$)")  # left open where the sentence was cut: "(a? b?)"
_HEADING = re.compile(
    rf"(?:(?m:^)|(?<=[.!?:;])[ \t]+)[ \t*#_]*(?:(?P<other>{words.OTHER_SECTIONS})|(?P<own>{words.FINDING_SECTIONS}))"
    r"[ \t*_]*:|\n(?=[ \t]*\n)|(?m:^)[ \t]*[A-Z][A-Za-z /&]{2,40}:",
    re.IGNORECASE,
)
_DENIES_NEXT = re.compile(words.DENIES_NEXT, re.IGNORECASE)
_DENIES_CLAUSE = re.compile(words.DENIES_CLAUSE, re.IGNORECASE)
_DOUBTS_NEXT = re.compile(words.DOUBTS_NEXT, re.IGNORECASE)
_DOUBTS_CLAUSE = re.compile(words.DOUBTS_CLAUSE, re.IGNORECASE)
_NO_DENIAL = re.compile(rf"{words.PSEUDO}|{words.DOUBTS_CLAUSE}", re.IGNORECASE)

_NUMBER = r"\d+(?:[.,]\d+)?"
_SIZE = re.compile(rf"{_NUMBER}(?:(?:\s*(?:mm|cm))?\s*[x×*]\s*{_NUMBER})*\s*(?:mm|cm)\b", re.IGNORECASE)
_LENGTH = re.compile(rf"({_NUMBER})\s*(mm|cm)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mention:
    """A clause that speaks of a finding, and what it says.

    Attributes:
        label: the finding.
        clause: the words of the text.
        rule: the rule that fits them.
        status: what they say of the finding.
        cue: the words that deny it or make it uncertain; ``""`` where it is plainly affirmed.
    """

    label: str
    clause: str
    rule: Rule
    status: Status
    cue: str = ""


class KeywordReader:
    """Reads findings from report text: a label is present if a clause mentions it and does not deny it.

    Args:
        keywords: label -> rules; the packaged ones cover the 18 labels of CT-RATE.
        uncertain: what a finding counts as that is mentioned with doubt only ("possible", "cannot be excluded", "?").
            A report that names a finding with doubt directs the reader to it, and a classifier that was trained on
            yes and no answers, as RadBERT was, has the words of the finding to go by. So the default is present.
    """

    def __init__(
        self,
        keywords: Mapping[str, tuple[Rule, ...]] = KEYWORDS,
        uncertain: Literal["present", "absent"] = "present",
    ) -> None:
        self.uncertain = uncertain
        self._rules = {label: tuple(_Compiled.of(rule) for rule in rules) for label, rules in keywords.items()}
        # The first words of all rules of a label: most sentences are done with after one search a label.
        self._hints = {
            label: re.compile(rf"\b(?:{'|'.join(rule.words[0] for rule in rules)})", re.IGNORECASE)
            for label, rules in keywords.items()
        }
        self._seen: dict[str, tuple[Mention, ...]] = {}

    def read(self, text: str) -> dict[str, bool]:
        """Label -> whether the text says that it is present. Silence counts as absent."""
        found = dict.fromkeys(self._rules, False)
        for mention in self.mentions(text):
            if mention.status == "present" or (mention.status == "uncertain" and self.uncertain == "present"):
                found[mention.label] = True
        return found

    def explain(self, text: str) -> dict[str, Mention | None]:
        """Label -> the mention that decided: the first plain one, else the first with doubt, else the first denial.

        ``None`` where the text is silent.
        """
        rank = {"present": 0, "uncertain": 1, "absent": 2}
        decided: dict[str, Mention | None] = dict.fromkeys(self._rules)
        for mention in self.mentions(text):
            best = decided[mention.label]
            if best is None or rank[mention.status] < rank[best.status]:
                decided[mention.label] = mention
        return decided

    def mentions(self, text: str) -> Iterator[Mention]:
        """All mentions of all labels, sentence by sentence."""
        for sentence in _sentences(text):
            known = self._seen.get(sentence)
            if known is None:
                if len(self._seen) >= _CACHED_SENTENCES:
                    self._seen.clear()
                known = self._seen[sentence] = tuple(self._read_sentence(sentence))
            yield from known

    def _read_sentence(self, sentence: str) -> Iterator[Mention]:
        labels = [label for label, hint in self._hints.items() if hint.search(sentence)]
        if labels:
            for clause, bare in _clauses(sentence):
                for label in labels:
                    mention = self._read_clause(label, clause, bare)
                    if mention is not None:
                        yield mention

    def _read_clause(self, label: str, clause: str, bare: str) -> Mention | None:
        """What a clause says of a label: the rule that affirms it most, if any fits."""
        weakest: Mention | None = None
        for rule in self._rules[label]:
            for first, last in rule.matches(clause):
                status, cue = _judge(clause, bare, first, last)
                mention = Mention(label, clause.strip(), rule.rule, status, cue)
                if status == "present":
                    return mention
                if weakest is None or (status == "uncertain" and weakest.status == "absent"):
                    weakest = mention
        return weakest


@dataclass(frozen=True, slots=True)
class _Compiled:
    rule: Rule
    words: tuple[re.Pattern[str], ...]
    unless: re.Pattern[str] | None

    @classmethod
    def of(cls, rule: Rule) -> _Compiled:
        patterns = tuple(re.compile(rf"\b(?:{word})", re.IGNORECASE) for word in rule.words)
        return cls(rule, patterns, re.compile(rf"\b(?:{rule.unless})", re.IGNORECASE) if rule.unless else None)

    def matches(self, clause: str) -> Iterator[tuple[int, int]]:
        """Where the rule fits: start of its first and of its last word; every place of a rule of one word."""
        if self.unless is not None and self.unless.search(clause):
            return
        hits = [word.search(clause) for word in self.words]
        starts = [hit.start() for hit in hits if hit is not None]
        if len(starts) < len(hits):
            return
        if len(hits) > 1:
            yield min(starts), max(starts)
            return
        for hit in self.words[0].finditer(clause):
            yield hit.start(), hit.start()


def largest_size(text: str) -> float | None:
    """The largest size in mm that a text gives, of "6 x 4 mm" the 6; ``None`` without one."""
    sizes = []
    for found in _SIZE.finditer(text):
        unit = ""
        for number, own in reversed(_LENGTH.findall(found[0])):  # a number without a unit has the next one's
            unit = own.lower() or unit
            sizes.append(float(number.replace(",", ".")) * (10 if unit == "cm" else 1))
    return max(sizes, default=None)


def _judge(clause: str, bare: str, first: int, last: int) -> tuple[Status, str]:
    """What the clause says of a finding whose words start at `first` to `last`, and the cue that decides.

    Args:
        clause: the words.
        bare: the same with everything blanked that looks like a denial and is none.
        first: start of the finding's first word.
        last: start of its last word.
    """
    denial = _DENIES_NEXT.search(bare, 0, last + 1) or _DENIES_CLAUSE.search(bare, first)
    if denial:
        return "absent", denial[0]
    doubt = _DOUBTS_NEXT.search(clause, 0, last + 1)
    if doubt:
        return "uncertain", doubt[0]
    for found in _DOUBTS_CLAUSE.finditer(clause, first):
        around = next((p for p in _PARENTHESIS.finditer(clause) if p.start() < found.start() < p.end()), None)
        if around is None or around.start() < last:
            return "uncertain", found[0]
    return "present", ""


def _sentences(text: str) -> Iterator[str]:
    for part in _own_sections(text):
        for sentence in SENTENCES.split(part):
            if sentence and not sentence.isspace():
                yield sentence


def _own_sections(text: str) -> Iterator[str]:
    """The text without sections such as history, technique and comparison; all of it where it has no headings.

    Such a section ends at the next heading or blank line.
    """
    start, skipping = 0, False
    for heading in _HEADING.finditer(text):
        if heading["other"]:
            if not skipping:
                yield text[start : heading.start()]
            skipping = True
        elif skipping or heading["own"]:
            if not skipping:
                yield text[start : heading.start()]
            start, skipping = heading.end() if heading["own"] else heading.start(), False
    if not skipping:
        yield text[start:]


def _clauses(sentence: str) -> Iterator[tuple[str, str]]:
    """Each clause, with its words and with everything blanked that looks like a denial and is none."""
    bare = _NO_DENIAL.sub(lambda found: " " * len(found[0]), sentence)
    start = 0
    ends = [(found.start(), found.end()) for found in _BREAK.finditer(bare)]
    for end, follows in [*ends, (len(bare), len(bare))]:
        for left, right in _statements(bare, start, end):
            if not sentence[left:right].isspace() and left < right:
                yield sentence[left:right], bare[left:right]
        start = follows


def _statements(bare: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut at 'and' or a comma where both sides are statements of their own."""
    for joint in list(_JOINT.finditer(bare, start, end)):
        if _is_cut(bare[start : joint.start()], bare[joint.end() : end]):
            yield start, joint.start()
            start = joint.end()
    yield start, end


def _is_cut(left: str, right: str) -> bool:
    """Whether a joint separates statements: each side has a verb, or one affirms and the other denies."""
    if _VERB.search(left) and _VERB.search(right):
        return True
    if _DENIES_NEXT.search(left):
        return _OPENS.match(right) is not None
    if _DENIES_NEXT.match(right):
        return True
    return _MANY.match(left) is not None and _DENIES_CLAUSE.search(right.split(",")[0]) is not None
