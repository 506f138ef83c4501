"""Contract checks for components: what the rest of the package relies on, in one call a component.

Authors of plug-ins call them in their own tests::

    from reg2rg.testing import check_encoder, check_projector

    def test_my_encoder():
        check_encoder(lambda: MyEncoder(size=(32, 32, 16)), size=(32, 32, 16))
"""

from reg2rg.testing.contract import ContractError
from reg2rg.testing.datasets import check_dataset
from reg2rg.testing.exporters import check_exporter, sample_result
from reg2rg.testing.heads import check_head
from reg2rg.testing.language_models import check_language_model
from reg2rg.testing.models import check_encoder, check_projector
from reg2rg.testing.runners import check_runner
from reg2rg.testing.scans import check_reader, check_segmenter
from reg2rg.testing.scoring import check_labeler, check_metric
from reg2rg.testing.splitters import check_splitter

__all__ = [
    "ContractError",
    "check_dataset",
    "check_encoder",
    "check_exporter",
    "check_head",
    "check_labeler",
    "check_language_model",
    "check_metric",
    "check_projector",
    "check_reader",
    "check_runner",
    "check_segmenter",
    "check_splitter",
    "sample_result",
]
