"""Every registered projector keeps the contract with default arguments beyond the two widths."""

import pytest

from reg2rg.models.projectors import PROJECTORS
from reg2rg.testing import check_projector


@pytest.mark.parametrize("name", PROJECTORS)
def test_contract(name: str) -> None:
    check_projector(PROJECTORS.get(name))
