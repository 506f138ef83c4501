"""One report while it is written: a frame for each region in slot order, free text between frames, then the end.

A paragraph ends where the model begins the next frame, or wishes to end. What the model would have written if it had
kept to the form by itself is what it writes here, token by token: only tokens that break the form are taken from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from reg2rg.core.report import Written, split_tail, write_paragraph
from reg2rg.core.text import UNWRITTEN
from reg2rg.models.constrained.frames import Frames
from reg2rg.models.constrained.referring import Referring
from reg2rg.models.constrained.vocabulary import joined
from reg2rg.models.llm.base import END, Branches, Decoding
from reg2rg.models.llm.decoding import ends_in_loop

_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_TAIL = re.compile(r"The\s+other\s+report\s+is")
_EITHER, _BLANK = ("", " "), (" ",)


class _State(NamedTuple):
    """Where an answer stands.

    Attributes:
        slot: of the paragraph or frame.
        begun: text of the frame so far, ``None`` in a paragraph.
        leads: blanks that may stand before the frame.
        name: that the frame has given.
        text: of the paragraph.
        pending: bytes of a character that is not complete.
        before: text of the paragraph before, where the model began the frame by itself.
    """

    slot: int = 0
    begun: str | None = ""
    leads: tuple[str, ...] = _EITHER
    name: str = ""
    text: str = ""
    pending: bytes = b""
    before: str | None = None


class ReportGuide:
    """Holds one answer to the form; see `reg2rg.models.llm.base.Guide`.

    `Decoding.max_new_tokens` is a limit of what the model may write of its own accord. A paragraph that reaches it is
    cut, and every region behind it still has its frame and an equal share of as many tokens: so the answer may become
    twice as long, where the context has room.

    Args:
        frames: of the region set.
        given: names of the regions in slot order.
        decoding: limits.
        room: tokens that the model can still read.
        forced: the frame has the name of the given region; else one of the given that the model chooses.
        tail: texts of other regions may follow the last paragraph, and are written as part of it.
        slot: of the one paragraph that is written; all are if not given.
    """

    def __init__(
        self,
        frames: Frames,
        given: Sequence[str],
        decoding: Decoding,
        room: int,
        forced: bool,
        tail: bool = False,
        slot: int | None = None,
    ) -> None:
        self.ids: list[int] = []
        self.truncated = False
        self._frames, self._given, self._decoding = frames, tuple(given), decoding
        self._forced, self._tail = forced, tail
        self._slots = range(len(given)) if slot is None else range(slot, slot + 1)
        self._later = {first: sum(frames.length(slot) for slot in self._slots if slot > first) for first in self._slots}
        written = sum(len(frames.text(slot, given[slot])) for slot in self._slots)
        self.most = max(1, min(room, 2 * decoding.max_new_tokens + written + len(self._slots)))
        self._state = self._next = _State(self._slots[0])
        self._from, self._until = 0, 0
        self._done: list[tuple[str, str, bool]] = []
        self._names = {slot: Referring(frames, slot) for slot in self._slots}

    # ---- what the loop asks

    def allows(self, token: int) -> bool:
        """Whether the answer may go on with a token, or with `END`."""
        if token == END:
            return self._may_end()
        found = self._after(self._state, token)
        if found is not None:
            self._next = found
        return found is not None

    def allowed(self) -> Sequence[int] | None:
        """The tokens that may come, where they are few; ``None``: any but those that were refused."""
        state = self._state
        if state.begun is None:
            return None
        options = self._frames.options(state.slot, state.begun, state.leads)
        return [token for token in options.tokens if self._after(state, token) is not None]

    def look(self, token: int, logits: Tensor, branches: Callable[[], Branches]) -> None:
        """See the logits (V,) that the token, which is about to be taken, was chosen from."""
        old, new = self._state, self._next
        if token == END or not self._frames.identity:
            return
        if old.begun is not None:
            self._names[old.slot].read(old.begun, old.leads, token, logits, branches)
        elif new.before is not None and old.text.startswith(new.before):  # the frame began before this token
            self._names[new.slot].read(old.text[len(new.before) :], ("",), token, logits, branches)

    def take(self, token: int) -> bool:
        """Write a token that is allowed, or end; whether the answer goes on."""
        if token == END:
            self._finish(False)
            return False
        old, new = self._state, self._next
        if new.slot > old.slot:
            self._close(old.name, new.before or "")
        self.ids.append(token)
        self._state = new
        if new.begun is None and (old.begun is not None or new.slot > old.slot):
            self._from, self._until = len(self.ids), self._end_of_paragraph()
        return self._goes_on()

    # ---- what may come

    def _may_end(self) -> bool:
        if self._state.begun is not None:
            return not self.allowed()  # a vocabulary without the words of the frame
        if self._is_last(self._state.slot):
            return True
        self._ask(False)
        return False

    def _is_last(self, slot: int) -> bool:
        return slot == self._slots[-1]

    def _open(self, slot: int) -> set[str]:
        """Names that the frame of a slot may have."""
        if not self._frames.identity or self._forced:
            return {self._given[slot]}
        return set(self._given) - {name for name, _, _ in self._done} - {self._state.name}

    def _after(self, state: _State, token: int) -> _State | None:
        vocabulary = self._frames.vocabulary
        if token >= len(vocabulary) or token in vocabulary.control:
            return None
        if state.begun is not None:
            text = vocabulary.in_frame(token)
            return self._in_frame(state, text) if text else None
        text, pending = joined(state.pending, vocabulary.added[token])
        return self._in_text(_State(state.slot, None, state.leads, state.name, state.text, pending), text)

    def _in_frame(self, state: _State, text: str) -> _State | None:
        begun, going_on = f"{state.begun}{text}", False
        for name in self._open(state.slot):
            frame = self._frames.text(state.slot, name)
            for lead in state.leads:
                whole = lead + frame
                if begun.startswith(whole):
                    rest = begun[len(whole) :]
                    return self._in_text(state._replace(begun=None, name=name, text=""), rest)
                going_on = going_on or whole.startswith(begun)
        return state._replace(begun=begun) if going_on else None

    def _in_text(self, state: _State, added: str) -> _State | None:
        """A paragraph with some more text, which may begin the next frame; ``None`` where it must not."""
        if not added:
            return state
        text = state.text + added
        if UNWRITTEN.search(text, max(0, len(state.text) - 4)) or self._breaks_tail(state.slot, text, added):
            return None
        found = self._frames.begins.search(text) if any(map(str.isdigit, added)) else None
        if found is None:
            return _State(state.slot, None, state.leads, state.name, text, state.pending, state.before)
        if self._is_last(state.slot) or state.pending or state.before is not None:
            return None
        ahead = _State(state.slot + 1, "", ("",), state.name, before=text[: found.start()])
        return self._in_frame(ahead, text[found.start() :])

    def _breaks_tail(self, slot: int, text: str, added: str) -> bool:
        """Whether a tail begins where none may, or names a region that is given, or one a second time."""
        if self._tail and self._is_last(slot):
            keys = [" ".join(entry.key.split()) for entry in split_tail(text)[1]] if "{" in text else []
            return len(set(keys)) < len(keys) or not set(keys).isdisjoint(self._given)
        return "s" in added and _TAIL.search(text) is not None

    # ---- limits

    def _end_of_paragraph(self) -> int:
        """Length of the answer at which the paragraph that begins here is cut."""
        whole, slot = self._decoding.max_new_tokens, self._state.slot
        share = max(1, whole // len(self._slots))
        limit = whole if len(self.ids) < whole else len(self.ids) + share
        if self._decoding.max_paragraph_tokens is not None and not (self._tail and self._is_last(slot)):
            limit = min(limit, len(self.ids) + self._decoding.max_paragraph_tokens)
        return min(limit, self.most - self._later[slot] - (self._slots[-1] - slot))

    def _goes_on(self) -> bool:
        if len(self.ids) >= self.most:
            self._finish(True)
            return False
        if self._state.begun is not None:
            return True
        limits, own = self._decoding, self.ids[self._from :]
        looped = limits.stop_on_loop > 1 and ends_in_loop(own, limits.stop_on_loop, limits.longest_loop)
        if not looped and len(self.ids) < self._until:
            return True
        if self._is_last(self._state.slot):
            self._finish(True)
            return False
        self._ask(True)
        return True

    def _ask(self, cut: bool) -> None:
        """End the paragraph, and ask for the next frame."""
        state = self._state
        text = state.text + ("\ufffd" if state.pending else "")
        self._close(state.name, text if text[-1:].isspace() else f"{text} ", cut)
        self._state = _State(state.slot + 1, "", _BLANK if text and not text[-1].isspace() else _EITHER)

    def _close(self, name: str, text: str, cut: bool = False) -> None:
        if cut:
            self.truncated = True
            ends = [match.end() for match in _SENTENCE_END.finditer(text)]
            text = text[: ends[-1]] + " " if ends else text
        self._done.append((name, text, cut))

    def _finish(self, cut: bool) -> None:
        """End the answer. Regions that no token was left for get an empty paragraph, which counts as cut."""
        state = self._state
        if state.begun is None:
            self._close(state.name, state.text + ("\ufffd" if state.pending else "") + " ", cut)
        named = {name for name, _, _ in self._done}
        free = [name for name in self._given if name not in named]
        left = [self._given[slot] for slot in self._slots[len(self._done) :]]
        for name in left if self._forced or len(self._slots) < len(self._given) else free:
            self._close(name, " ", True)

    # ---- what came of it

    def text(self) -> str:
        """The report: each frame as a report has it, with the text that was written behind it."""
        identity, tidied = self._frames.identity, self._frames.vocabulary.tidied
        pieces = []
        for slot, (name, text, _) in zip(self._slots, self._done, strict=False):
            blank = "" if text[:1].isspace() else " "  # as a report has it, whatever stands behind the colon
            pieces.append(write_paragraph(slot, name, "", identity).rstrip() + blank + tidied(text))
        return "".join(pieces).strip()

    def written(self) -> tuple[Written, ...]:
        """What is known of each paragraph beside its text."""
        return tuple(
            Written(slot, name, self._names[slot].probabilities(), self._forced, cut)
            for slot, (name, _, cut) in zip(self._slots, self._done, strict=False)
        )
