"""Contract check of language models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from reg2rg.core.errors import ConfigError
from reg2rg.models.llm.base import Branches, Decoding, LanguageModel
from reg2rg.models.state import kept_names
from reg2rg.testing.contract import require

if TYPE_CHECKING:
    from reg2rg.models.llm.causal_lm import CausalLM

_LENGTHS, _ANSWER = (13, 9, 5), 6
_LIMITS = Decoding(max_new_tokens=_ANSWER, stop_on_loop=0)
_VISUAL = slice(1, 4)


def check_language_model(
    build: Callable[..., LanguageModel], rounding: float = 1e-3, rounding_half: float = 0.1
) -> None:
    """Check a language model against the contract of `reg2rg.models.llm.base.LanguageModel`.

    For a folder that you bring::

        check_language_model(partial(CausalLM, "path/of/the/folder", lora=LoRA()))

    Prompts hold vectors that are no words, as visual tokens are. A prompt's answer is the same alone, beside others
    with padding on either side, whatever stands in the padding, and with adapters folded in; so are its losses. A guide
    is obeyed, and the logits that it sees, of the answer and beside it, are those that losses come from. Of a
    `CausalLM` answers and losses are those of its library (``generate`` without sampling, its logits). All that trains
    gets a gradient, as do the prompts, with gradient checkpointing the same ones; a family that refuses checkpointing
    by name keeps the contract. Of a model whose `require_blocks` agrees, texts behind one prompt have the losses that
    each has alone, in any order, and answers to one prompt are those of that prompt alone. A copy that gets what a
    folder holds predicts the same. In bfloat16 losses stay close to those in float32, and answers do not depend on the
    batch.

    Adapters are given random numbers first, since new ones change nothing.

    Args:
        build: makes the model; takes ``dtype`` and ``gradient_checkpointing`` by name, as `CausalLM` does. Called three
            times.
        rounding: what rounding in float32 may do: to losses, in parts of their standard deviation; to gradients, in
            parts of their norm. Answers may part where two tokens are so close.
        rounding_half: likewise in bfloat16: to losses beside those in float32, root mean square, and to answers.

    Raises:
        ContractError: naming the first part that is broken, and by how much.
    """
    from reg2rg.models.llm.causal_lm import CausalLM  # with transformers, which the other checks do without

    torch.manual_seed(0)
    model = build(dtype="float32")
    require(isinstance(model, LanguageModel), model, "type", "no subclass of LanguageModel", "one")
    _stir_adapters(model)
    model.eval()
    with torch.no_grad():
        probe, losses = _check_losses(model, _Probe.of(model), rounding)
        answers = _check_batches(model, probe)
        if isinstance(model, CausalLM):
            _check_reference(model, probe, answers)
        _check_guides(model, probe, losses)
        _check_merged(model, probe, answers, losses)
        _check_blocks(model, probe, answers)
    gradients = _gradients(model, probe)
    try:
        other = build(dtype="float32", gradient_checkpointing=True)
    except ConfigError:
        other = build(dtype="float32")
    _check_saved(model, other, probe, answers, losses)
    _check_same_gradients(other, gradients, _gradients(other, probe), rounding)
    half = replace(probe, nats=rounding_half / rounding * probe.nats)
    _check_half(model, build(dtype="bfloat16"), half, losses)


@dataclass(frozen=True)
class _Probe:
    """Prompts of three lengths, the answers to train on, and vectors that stand among the words.

    Attributes:
        prompts: ids (n,) of each prompt.
        targets: ids (K,) of each answer.
        visual: (3, E) vectors that replace the words at `_VISUAL`.
        nats: what rounding may do to a loss.
    """

    prompts: list[Tensor]
    targets: list[Tensor]
    visual: Tensor
    nats: float = 0.0

    @staticmethod
    def of(model: LanguageModel) -> _Probe:
        special = set(model.tokenizer.all_special_ids)
        words = torch.tensor([i for i in range(min(len(model.tokenizer), 5000)) if i not in special])
        words = words.to(next(model.parameters()).device)
        drawn = [words[torch.randint(len(words), (n + _ANSWER,), device=words.device)] for n in _LENGTHS]
        with torch.no_grad():
            spread = model.embed(words[None]).float().std()
        visual = torch.randn(3, model.hidden_size, device=words.device) * spread
        return _Probe([row[:-_ANSWER] for row in drawn], [row[-_ANSWER:] for row in drawn], visual)

    def embedded(self, model: LanguageModel, seen: bool = True) -> list[Tensor]:
        """Each prompt as (n, E); of words alone unless `seen`."""
        rows = [model.embed(ids[None])[0].clone() for ids in self.prompts]
        for row in rows if seen else ():
            row[_VISUAL] = self.visual.to(row.dtype)
        return rows


def _padded(rows: Sequence[Tensor], left: bool) -> tuple[Tensor, Tensor]:
    """Rows (n, E) as (B, L, E), with noise for padding, and their mask (B, L)."""
    side = "left" if left else "right"
    ones = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
    mask = pad_sequence(ones, batch_first=True, padding_side=side)
    inputs = pad_sequence(list(rows), batch_first=True, padding_side=side)
    noise = torch.randn_like(inputs) * inputs.detach().std()
    return torch.where(mask.bool()[..., None], inputs, noise), mask


def _decoded(model: LanguageModel, rows: Sequence[Tensor], left: bool = True) -> list[list[int]]:
    return [answer.ids for answer in model.decode(*_padded(rows, left), _LIMITS)]


def _losses(model: LanguageModel, rows: Sequence[Tensor], targets: Sequence[Tensor], left: bool = False) -> Tensor:
    """(K,) nats of the answers behind the prompts, in one batch."""
    whole = [torch.cat([row, model.embed(ids[None])[0]]) for row, ids in zip(rows, targets, strict=True)]
    labels = [
        torch.cat([torch.full_like(ids[:1], -100).expand(len(row)), ids])
        for row, ids in zip(rows, targets, strict=True)
    ]
    side = "left" if left else "right"
    return model.answer_nll(
        *_padded(whole, left), pad_sequence(labels, batch_first=True, padding_value=-100, padding_side=side)
    )


def _require_close(model: LanguageModel, part: str, found: Tensor, wanted: Tensor, most: float) -> None:
    far = float((found - wanted).abs().max())
    require(far <= most, model, part, f"losses that differ by {far:.2g} nats", f"at most {most:.2g}")


def _require_same(
    model: LanguageModel, part: str, found: Sequence[list[int]], wanted: Sequence[list[int]], probe: _Probe, seen: bool
) -> None:
    """Equal answers, or answers that part where two tokens are as likely."""
    for place, (row, one, other) in enumerate(zip(probe.embedded(model, seen), found, wanted, strict=True)):
        ends = [*one, model.tokenizer.eos_token_id], [*other, model.tokenizer.eos_token_id]
        step = next((i for i, (a, b) in enumerate(zip(*ends, strict=False)) if a != b), None)
        if step is None:
            continue
        tokens = [row.new_tensor([*one[:step], end[step]], dtype=torch.long) for end in ends]
        nats = [float(_losses(model, [row], [ids])[-1]) for ids in tokens]
        far = abs(nats[0] - nats[1])
        said = f"another token at place {step} of the answer to prompt {place}, {far:.2g} nats apart"
        require(far <= probe.nats, model, part, said, f"the same answer, or at most {probe.nats:.2g}")


def _check_batches(model: LanguageModel, probe: _Probe) -> list[list[int]]:
    """Answers do not depend on the batch; returns them."""
    rows = probe.embedded(model)
    alone = [_decoded(model, [row])[0] for row in rows]
    for side in ("left", "right"):
        together = _decoded(model, rows, side == "left")
        _require_same(model, f"decoding in a batch padded on the {side}", together, alone, probe, True)
    return alone


class _Dictation:
    """A guide that lets one answer be written, and keeps the logits of each token and of the one behind it."""

    def __init__(self, target: list[int]) -> None:
        self.ids: list[int] = []
        self.truncated, self.most = False, len(target)
        self.target = target
        self.seen: list[Tensor] = []
        self.ahead: list[Tensor] = []

    def allows(self, token: int) -> bool:
        return token == self.target[len(self.ids)]

    def allowed(self) -> Sequence[int]:
        return [self.target[len(self.ids)]]

    def look(self, token: int, logits: Tensor, branches: Callable[[], Branches]) -> None:
        self.seen.append(logits.clone())
        self.ahead.append(branches()([0], [token])[0])

    def take(self, token: int) -> bool:
        self.ids.append(token)
        return len(self.ids) < self.most


def _check_guides(model: LanguageModel, probe: _Probe, losses: Tensor) -> None:
    guides = [_Dictation(target.tolist()) for target in probe.targets]
    answers = model.decode(*_padded(probe.embedded(model), True), _LIMITS, guides)
    found = [answer.ids for answer in answers]
    require(found == [guide.target for guide in guides], model, "guides", f"answers {found}", "the ones they allow")
    wanted = losses.view(len(guides), -1)
    for told, logits, skipped in (("seen", "seen", 0), ("read beside the answer", "ahead", 1)):
        kept = [torch.stack(getattr(guide, logits)).float()[: _ANSWER - skipped] for guide in guides]
        nats = [
            nn.functional.cross_entropy(one, target[skipped:], reduction="none")
            for one, target in zip(kept, probe.targets, strict=True)
        ]
        _require_close(model, f"logits {told} by guides", torch.stack(nats), wanted[:, skipped:], probe.nats)


def _check_losses(model: LanguageModel, probe: _Probe, rounding: float) -> tuple[_Probe, Tensor]:
    """Losses do not depend on the batch; returns them, and the probe with what rounding may do to them."""
    rows = probe.embedded(model)
    alone = torch.cat([_losses(model, [row], [ids]) for row, ids in zip(rows, probe.targets, strict=True)])
    require(alone.shape == (3 * _ANSWER,), model, "losses", f"{tuple(alone.shape)}", "one a label")
    require(bool(alone.isfinite().all()), model, "losses", "inf or nan", "finite numbers")
    probe = replace(probe, nats=rounding * float(alone.std()))
    for side in ("left", "right"):
        together = _losses(model, rows, probe.targets, side == "left")
        _require_close(model, f"losses in a batch padded on the {side}", together, alone, probe.nats)
    return probe, alone


def _check_reference(model: CausalLM, probe: _Probe, answers: Sequence[list[int]]) -> None:
    """Losses and answers of words are those of the library, and answers follow what training reads."""
    from transformers import GenerationConfig

    rows = probe.embedded(model, seen=False)
    losses = _losses(model, rows, probe.targets)
    wanted, written = [], []
    plain = GenerationConfig(
        max_new_tokens=_ANSWER, do_sample=False, eos_token_id=sorted(model.eos_ids), pad_token_id=max(model.eos_ids)
    )
    for prompt, target in zip(probe.prompts, probe.targets, strict=True):
        ids = torch.cat([prompt, target])[None]
        logits = model.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        wanted.append(nn.functional.cross_entropy(logits.float(), target, reduction="none"))
        answer = model.model.generate(input_ids=prompt[None], generation_config=plain)[0, len(prompt) :].tolist()
        end = next((place for place, token in enumerate(answer) if token in model.eos_ids), None)
        written.append(answer[:end])
    _require_close(model, "losses beside the library's", losses, torch.cat(wanted), probe.nats)
    _require_same(model, "decoding beside generate", _decoded(model, rows), written, probe, False)
    for place, (row, answer) in enumerate(zip(probe.embedded(model), answers, strict=True)):
        ids = torch.tensor(answer, dtype=torch.long, device=row.device)
        read = torch.cat([row, model.embed(ids[None])[0]])[None]
        scores = model.model(inputs_embeds=read, use_cache=False).logits[0, len(row) - 1 : -1].float().log_softmax(-1)
        far = float((scores.amax(-1) - scores.gather(1, ids[:, None])[:, 0])[: len(answer)].max()) if answer else 0.0
        said = f"a token {far:.2g} nats behind the likeliest of the answer to prompt {place}"
        require(far <= probe.nats, model, "decoding beside a reading without a cache", said, "the likeliest")


def _check_merged(model: LanguageModel, probe: _Probe, answers: Sequence[list[int]], losses: Tensor) -> None:
    rows = probe.embedded(model)
    with model.merged():
        folded = probe.embedded(model)
        moved = max(float((one - other).abs().max()) for one, other in zip(folded, rows, strict=True))
        require(moved == 0, model, "embeddings while adapters are merged", f"others, by {moved:.2g}", "the same")
        together = _losses(model, rows, probe.targets)
        _require_close(model, "losses while adapters are merged", together, losses, probe.nats)
        _require_same(model, "decoding while adapters are merged", _decoded(model, rows), answers, probe, True)
    back = _losses(model, rows, probe.targets)
    _require_close(model, "losses after merging is undone", back, losses, probe.nats)


def _check_blocks(model: LanguageModel, probe: _Probe, answers: Sequence[list[int]]) -> None:
    """Texts that see the prompt and themselves alone, unless the model refuses them by name."""
    rows = probe.embedded(model)
    try:
        model.require_blocks(len(rows[0]) + _ANSWER)
    except ConfigError:
        return
    prompt, texts = rows[0], probe.targets
    alone = [_losses(model, [prompt], [text]) for text in texts]
    none = torch.full((len(prompt),), -100, device=prompt.device)
    for order in (range(len(texts)), reversed(range(len(texts)))):
        places = list(order)
        labels = torch.cat([none, *(texts[place] for place in places)])[None]
        numbers = [torch.full_like(texts[place], 1 + at) for at, place in enumerate(places)]
        blocks = torch.cat([torch.zeros_like(none), *numbers])[None]
        whole = torch.cat([prompt, *(model.embed(texts[place][None])[0] for place in places)])[None]
        found = model.answer_nll(whole, torch.ones_like(labels), labels, blocks)
        wanted = torch.cat([alone[place] for place in places])
        _require_close(model, "losses of texts that see the prompt and themselves alone", found, wanted, probe.nats)
    places = [0, 1, 0, 2, 2, 1]
    together = [one.ids for one in model.decode(*_padded(rows, True), _LIMITS, (), (), places)]
    for first in (0, 3):
        some = {place: together[at] for at, place in enumerate(places[first:], first)}
        found_answers = [some.get(place, answers[place]) for place in range(len(rows))]
        _require_same(model, "answers to one prompt", found_answers, answers, probe, True)


def _gradients(model: LanguageModel, probe: _Probe) -> dict[str, Tensor]:
    """Gradients of a step in training mode: of every parameter that trains, and of the vectors among the words."""
    visual = probe.visual.clone().requires_grad_(True)
    model.train()
    torch.manual_seed(2)
    rows = replace(probe, visual=visual).embedded(model)
    torch.autograd.backward(_losses(model, rows, probe.targets).mean())
    model.eval()
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad} | {"visual tokens": visual.grad}
    for name, gradient in found.items():
        said = "none" if gradient is None else "inf or nan"
        good = gradient is not None and bool(gradient.isfinite().all())
        require(good, model, f"gradient of {name}", said, "a finite one")
    model.zero_grad()
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def _check_same_gradients(
    model: LanguageModel, plain: dict[str, Tensor], again: dict[str, Tensor], rounding: float
) -> None:
    far = sum(float((again[name] - gradient).square().sum()) for name, gradient in plain.items()) ** 0.5
    norm = sum(float(gradient.square().sum()) for gradient in plain.values()) ** 0.5
    said = f"gradients that differ by {far / max(norm, 1e-30):.2g} of their norm"
    require(norm > 0, model, "gradients", "zeros alone", "some that are not zero")
    require(far <= rounding * norm, model, "gradient checkpointing", said, f"at most {rounding:g}")


def _check_saved(
    model: LanguageModel, other: LanguageModel, probe: _Probe, answers: Sequence[list[int]], losses: Tensor
) -> None:
    """What a folder holds of the model makes another one predict the same."""
    _take_over(model, other)
    other.eval()
    with torch.no_grad():
        rows = probe.embedded(other)
        loaded = torch.cat([_losses(other, [row], [ids]) for row, ids in zip(rows, probe.targets, strict=True)])
        _require_close(model, "losses after saving and loading", loaded, losses, 0.0)
        found = [_decoded(other, [row])[0] for row in rows]
    require(found == answers, model, "decoding after saving and loading", "other answers", "the same")


def _take_over(model: LanguageModel, other: LanguageModel) -> None:
    """Give another build what a folder would hold of this one, by way of a file."""
    holder = nn.ModuleDict({"llm": model})
    names = {name.removeprefix("llm.") for name in kept_names(holder)}
    held = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items() if name in names}
    wrong = other.load_state_dict(load(save(held)), strict=False).unexpected_keys
    require(not wrong, model, "state dict", f"names that another build lacks: {wrong[:4]}", "the same names")


def _check_half(model: LanguageModel, half: LanguageModel, probe: _Probe, losses: Tensor) -> None:
    _take_over(model, half)
    half.eval()
    with torch.no_grad():
        rows = probe.embedded(half)
        found = _losses(half, rows, probe.targets)
        far = float((found - losses).square().mean().sqrt())
        said = f"losses {far:.2g} nats from those in float32"
        require(far <= probe.nats, half, "bfloat16", said, f"at most {probe.nats:.2g}")
        alone = [_decoded(half, [row])[0] for row in rows]
        _require_same(half, "decoding in a batch in bfloat16", _decoded(half, rows), alone, probe, True)


def _stir_adapters(model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
