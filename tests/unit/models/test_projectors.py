"""Projectors."""

import pytest
import torch

from reg2rg.models.projectors import LinearNormProjector, LinearProjector, MLPProjector


def test_linear_is_one_affine_map() -> None:
    projector, tokens = LinearProjector(3, 5), torch.randn(2, 4, 3)
    expected = torch.einsum("ntc,ec->nte", tokens, projector.linear.weight) + projector.linear.bias
    torch.testing.assert_close(projector(tokens), expected)
    assert (projector.in_channels, projector.out_channels) == (3, 5)


@pytest.mark.parametrize(("factor", "hidden"), [(1.0, 6), (0.5, 3), (4, 24)])
def test_hidden_width_follows_the_language_model(factor: float, hidden: int) -> None:
    projector = MLPProjector(4, 6, hidden_factor=factor)
    assert projector(torch.zeros(1, 1, 4)).shape == (1, 1, 6)
    assert sum(p.numel() for p in projector.parameters()) == 2 * 4 + (4 + 1) * hidden + (hidden + 1) * 6


def test_linear_norm_is_an_affine_map_and_a_norm_over_the_model_width() -> None:
    projector, tokens = LinearNormProjector(3, 5).double(), torch.randn(2, 4, 3, dtype=torch.float64)
    torch.nn.init.normal_(projector.norm.weight)
    torch.nn.init.normal_(projector.norm.bias)
    x = tokens @ projector.linear.weight.T + projector.linear.bias
    x = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, correction=0, keepdim=True) + 1e-5)
    expected = x * projector.norm.weight + projector.norm.bias
    torch.testing.assert_close(projector(tokens), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("activation", "at"), [("relu", 0.0), ("gelu", -0.15865525)])
def test_mlp_without_a_norm(activation: str, at: float) -> None:
    """M3D's two linear maps with GELU, MedVInT's with ReLU: -1 through the activation, times one."""
    projector = MLPProjector(1, 2, norm=False, activation=activation)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in projector.parameters():
            parameter.zero_()
        projector.layers[1].weight[0] = projector.layers[3].weight[:, 0] = torch.ones(())
    torch.testing.assert_close(projector(torch.tensor([[[-1.0]]])), torch.full((1, 1, 2), at))
    assert len(list(projector.parameters())) == 4


def test_widths_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="widths 0 -> 4"):
        LinearProjector(0, 4)
    with pytest.raises(ValueError, match="leaves no channel"):
        MLPProjector(4, 4, hidden_factor=0)


def test_tokens_are_scaled_to_a_root_mean_square() -> None:
    tokens = MLPProjector(4, 6, rms=2.0)(torch.randn(2, 3, 4))
    torch.testing.assert_close(tokens.square().mean(-1).sqrt(), torch.full((2, 3), 2.0), rtol=1e-3, atol=0)
