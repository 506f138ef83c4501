"""Every registered head keeps the contract with default arguments; heads that break it are told how."""

import re

import pytest
import torch

from reg2rg.models.heads import HEADS, FindingsHead
from reg2rg.testing import ContractError, check_head


@pytest.mark.parametrize("name", HEADS)
def test_contract(name: str) -> None:
    check_head(HEADS.get(name))


class _OverTheBatch(FindingsHead):
    def forward(self, tokens, image, region):
        logits = super().forward(tokens, image, region)
        return logits - logits.mean(0)


class _ForgetsTheBase(FindingsHead):
    def learn(self, stated, texts):
        self.possible.copy_(torch.from_numpy(stated > 0))


class _Scalar(FindingsHead):
    def __init__(self, inputs):
        super().__init__(inputs)
        self.scale = torch.nn.Parameter(torch.ones(()))


@pytest.mark.parametrize(
    ("head", "part"),
    [(_OverTheBatch, "batch composition"), (_ForgetsTheBase, "learned after `learn`"), (_Scalar, "shape of scale")],
)
def test_what_breaks_it_is_named(head, part: str) -> None:
    with pytest.raises(ContractError, match=re.escape(part)):
        check_head(head)
