"""Whether samples take the tokens of frozen encoders from the store, and if not, why not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from reg2rg.core.errors import ConfigError
from reg2rg.core.task import Views
from reg2rg.data.samples import Entry
from reg2rg.store.encoded import FOLDER, Bits, EncodedView, Encoding, Facts
from reg2rg.store.store import Store
from reg2rg.store.views import ViewName

log = logging.getLogger(__name__)

Features = Literal["auto", "required", "never"]
SettledViews = Callable[[], Mapping[ViewName, Facts | str]]
"""Gives view -> what is known of the frozen encoder that looks at it, or why its tokens cannot be made before."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class WantedTokens:
    """What a config says of tokens that were made before.

    Attributes:
        features: ``auto``, ``required`` or ``never``.
        bits: of the tokens.
        augmented: training studies are transformed.
    """

    features: Features
    bits: Bits
    augmented: bool

    def find(
        self,
        store: Store,
        views: Views,
        want: Collection[ViewName],
        entries: Sequence[Entry],
        settled: SettledViews | None,
    ) -> dict[ViewName, EncodedView]:
        """The views that come as tokens: all that may and can, or none.

        Args:
            store: that holds them.
            views: settings of the views.
            want: views that the model looks at.
            entries: the studies.
            settled: of the model.

        Raises:
            ConfigError: tokens are required, and something of them is missing, stale or not legal; names it.
        """
        if self.features == "never" or (self.features == "auto" and (settled is None or not has_tokens(store))):
            return {}
        found, reason = self._look(store, views, want, entries, settled)
        if found:
            log.warning("Tokens of the %s view come from %s.", " and ".join(found), store.root / FOLDER)
        elif self.features == "required":
            raise ConfigError(f"data.features is required: {reason}")
        else:
            log.warning("data.features: scans are encoded at every step, for %s", reason)
        return found

    def _look(
        self,
        store: Store,
        views: Views,
        want: Collection[ViewName],
        entries: Sequence[Entry],
        settled: SettledViews | None,
    ) -> tuple[dict[ViewName, EncodedView], str]:
        if reason := not_legal(views, augmented=self.augmented):
            return {}, reason
        if settled is None:
            return {}, "no model said which of its encoders are frozen. Fix: give data and model to one Trainer"
        told = {view: facts for view, facts in settled().items() if view in want}
        legal = {view: facts for view, facts in told.items() if not isinstance(facts, str)}
        if not legal:
            return {}, nothing_frozen(told)
        found = {view: EncodedView(store, Encoding(view, views, facts, self.bits)) for view, facts in legal.items()}
        lacking = list(_lacking(found, {entry.study: entry.regions for entry in entries}))
        if lacking:
            return {}, f"{'; '.join(lacking)}. Fix: run `reg2rg data encode` with these configs"
        return found, ""


def _lacking(found: Mapping[ViewName, EncodedView], studies: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for view, one in found.items():
        if not one.folder.is_dir():
            others = sorted(path.name for path in one.folder.parent.glob(f"{view}-*"))
            beside = f", but of other encoders, weights, views or bits ({', '.join(others)})" if others else ""
            yield f"no tokens of the {view} view by this encoder in {one.folder.name}{beside}"
            continue
        states = one.lacking(studies)
        for state in sorted(set(states.values())):
            names = [study for study, other in states.items() if other == state]
            few = f"{', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}"
            yield f"tokens of the {view} view of {len(names)} of {len(studies)} studies are {state} ({few})"


def has_tokens(store: Store) -> bool:
    """Whether anything was ever encoded."""
    return (store.root / FOLDER).is_dir()


def not_legal(views: Views, *, augmented: bool) -> str:
    """Why no tokens can be made before, whatever the encoders are; ``""`` if they can.

    Args:
        views: settings of the views.
        augmented: training studies are transformed.
    """
    if views.features:
        return f"the task's views are features already ({views.features}). Fix: leave it out"
    if augmented:
        return (
            "data.augment changes the scans at every epoch, so that their tokens differ. Fix: leave data.augment out, "
            "or data.features: never"
        )
    return ""


def nothing_frozen(told: Mapping[ViewName, Facts | str]) -> str:
    """What is said where no encoder has a frozen part."""
    each = "; ".join(f"{view} view: {facts}" for view, facts in told.items() if isinstance(facts, str))
    return (
        f"no encoder of the model is frozen ({each or 'it has none'}). Fix: put what is not to be trained into Frozen"
    )
