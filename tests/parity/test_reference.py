"""The references are what they say: formulas, with nothing of this package in them."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import torch
import torch.nn.functional as F

from parity import reference

ALLOWED = {"__future__", "collections.abc", "dataclasses", "math", "torch"}


def test_it_imports_nothing_of_the_package_and_no_ready_made_layer() -> None:
    tree = ast.parse(Path(reference.__file__).read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules <= ALLOWED
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not named & {"nn", "functional", "softmax", "layer_norm", "scaled_dot_product_attention", "one_hot"}


def test_its_layers_are_the_usual_ones() -> None:
    """Against torch, so that a mistake in a formula is not taken for one of ours."""
    generator = torch.Generator().manual_seed(0)
    x, query, key, value = torch.randn(4, 7, 6, generator=generator, dtype=torch.float64)
    w = {"n.weight": x[0], "n.bias": x[1], "m.weight": x[:3], "m.bias": x[3, :3]}
    torch.testing.assert_close(reference.layer_norm(x, w, "n"), F.layer_norm(x, (6,), w["n.weight"], w["n.bias"]))
    torch.testing.assert_close(reference.linear(x, w, "m"), F.linear(x, w["m.weight"], w["m.bias"]))
    torch.testing.assert_close(reference.gelu(x), F.gelu(x))
    torch.testing.assert_close(reference.softmax(x), x.softmax(-1))
    heads = [part.reshape(7, 2, 3).transpose(0, 1) for part in (query, key, value)]
    attended = F.scaled_dot_product_attention(*heads).transpose(0, 1).reshape(7, 6)
    torch.testing.assert_close(reference.attention(query, key, value, heads=2), attended)
    losses = reference.nll(x, [-100, 3, 0, -100, -100, 5, 1])
    expected = F.cross_entropy(x[:-1], torch.tensor([3, 0, -100, -100, 5, 1]), reduction="none")
    torch.testing.assert_close(torch.stack(losses), expected[[0, 1, 4, 5]])
    assert math.isclose(float(reference.mean_loss(losses)), float(expected[[0, 1, 4, 5]].mean()))
