"""M3DViT: where things are, memory, and sizes. Its formulas are held in tests/parity."""

import pytest
import torch

from reg2rg.extras.peers import M3DViT

SIZE, PATCH = (16, 24, 8), (8, 8, 4)


def vit(**changes: object) -> M3DViT:
    torch.manual_seed(0)
    arguments: dict[str, object] = {"size": SIZE, "patch": PATCH, "dim": 12, "depth": 2, "heads": 3, "mlp_dim": 16}
    return M3DViT(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("orientation", "grid", "token"),
    [
        ("array", (2, 2, 3), 1 * 6 + 0 * 3 + 2),  # slab 1, first cell along H, last along W
        ("image", (2, 3, 2), 1 * 6 + 0 * 2 + 1),  # the same cell: front row of the picture, right column
    ],
)
def test_a_bright_voxel_changes_the_token_of_its_cell_most(
    orientation: str, grid: tuple[int, int, int], token: int
) -> None:
    """In RAS the last cell along W is in front, and the first along H the patient's left, on the right of a picture."""
    encoder = vit(orientation=orientation).eval()
    assert encoder.grid == grid
    volume = torch.full((1, 1, *SIZE), -0.8)
    spotted = volume.clone()
    spotted[0, 0, 3, 20, 6] = 1.0
    with torch.no_grad():
        moved = (encoder(spotted) - encoder(volume)).norm(dim=-1)[0]
    assert moved.argmax() == token


def test_checkpointing_changes_memory_alone() -> None:
    volumes, found = torch.rand(2, 1, *SIZE), []
    for checkpointing in (False, True):
        encoder = vit(checkpointing=checkpointing).train()
        encoder(volumes).square().sum().backward()
        found.append(encoder.patch_linear.weight.grad)
    assert torch.equal(found[0], found[1])


def test_the_class_token_takes_part() -> None:
    encoder, volumes = vit().eval(), torch.rand(1, 1, *SIZE)
    with torch.no_grad():
        before = encoder(volumes)
        encoder.class_token += torch.randn_like(encoder.class_token)
        assert (encoder(volumes) - before).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"heads": 5}, "multiple of the 5 heads"), ({"patch": (8, 8, 3)}, "does not divide into patches of")],
)
def test_refuses_sizes_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vit(**changes)


def test_refuses_views_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"M3DViT got volumes of shape .* expected \(N, 1, 16, 24, 8\)"):
        vit()(torch.zeros(1, 1, 16, 16, 8))
