"""CTViT and its codebook: sizes, memory, how codes move. The formulas are held in tests/parity."""

import pytest
import torch
import torch.nn.functional as F

from reg2rg.extras.peers import CTViT
from reg2rg.extras.peers import codebook as codebook_module
from reg2rg.extras.peers.codebook import CosineCodebook

SIZE, PATCH = (8, 12, 8), (4, 4, 2)


def ctvit(**changes: object) -> CTViT:
    torch.manual_seed(0)
    arguments: dict[str, object] = {"size": SIZE, "patch": PATCH, "dim": 12, "heads": 2, "head_dim": 4, "codes": 7}
    return CTViT(**{**arguments, "spatial_depth": 1, "temporal_depth": 1, **changes})  # type: ignore[arg-type]


def test_tokens_are_codes() -> None:
    encoder = ctvit().eval()
    assert (encoder.grid, encoder.num_tokens) == ((4, 2, 3), 24)
    with torch.no_grad():
        tokens = encoder(torch.rand(2, 1, *SIZE) * 2 - 1)
    same = (tokens.flatten(0, 1)[:, None] == encoder.codebook.vectors[0]).all(-1)
    assert same.any(1).all()


def test_weights_serve_another_size() -> None:
    """There are no position tables: places come from convolutions and distances."""
    small, large = ctvit(codes=0), ctvit(codes=0, size=(16, 12, 12))
    large.load_state_dict(small.state_dict())
    assert large.eval()(torch.zeros(1, 1, 16, 12, 12)).shape == (1, 6 * 4 * 3, 12)


def test_checkpointing_changes_memory_alone() -> None:
    volumes, found = torch.rand(2, 1, *SIZE), []
    for checkpointing in (False, True):
        encoder = ctvit(checkpointing=checkpointing, codebook_update="ema").train()
        encoder(volumes).square().sum().backward()
        found.append((encoder.patch_linear.weight.grad, encoder.codebook.vectors))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))  # the codes moved once


def test_codes_move_in_training_alone_and_if_asked() -> None:
    volumes = torch.rand(2, 1, *SIZE)
    for update, train, moves in (("ema", True, True), ("ema", False, False), ("frozen", True, False)):
        encoder = ctvit(codebook_update=update).train(train)
        before = encoder.codebook.vectors.clone()
        encoder(volumes)
        assert torch.equal(encoder.codebook.vectors, before) is not moves


def test_codes_come_to_lie_on_the_tokens() -> None:
    torch.manual_seed(0)
    book = CosineCodebook(8, 6, "ema").train()
    centres = F.normalize(torch.randn(3, 8), dim=-1)
    for _ in range(60):
        book(5 * centres[torch.randint(3, (1, 50))] + 0.05 * torch.randn(1, 50, 8))
    found = book.eval()(5 * centres[None])
    assert F.cosine_similarity(found[0], centres).min() > 0.99


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    book, tokens = CosineCodebook(4, 9).eval(), torch.randn(2, 11, 4)
    whole = book(tokens)
    monkeypatch.setattr(codebook_module, "_PIECE", 3)
    assert torch.equal(book(tokens), whole)


def test_codes_are_told_apart_in_single_precision_under_autocast() -> None:
    """Two codes closer than bfloat16 sees."""
    book = CosineCodebook(3, 2).eval()
    book.vectors = F.normalize(torch.tensor([[[1.0, 0.001, 0.0], [1.0, -0.001, 0.0]]]), dim=-1)
    tokens = torch.tensor([[[1.0, 0.002, 0.0], [1.0, -0.002, 0.0]]])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(book(tokens), book.vectors[0].view(1, 2, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"codes": -1}, r"codes is -1, expected 0 \(no codebook\) or more"), ({"patch": (3, 4, 2)}, "does not divide")],
)
def test_refuses_what_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ctvit(**changes)
