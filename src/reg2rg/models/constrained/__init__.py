"""Decoding that cannot lose its region: each paragraph of an answer is held to its frame while it is written.

Read `guide` first. `vocabulary` knows what a token adds to a text, `frames` how a tokenizer writes frames and names,
`referring` how sure a model is of a name.
"""

from reg2rg.models.constrained.frames import Frames
from reg2rg.models.constrained.guide import ReportGuide

__all__ = ["Frames", "ReportGuide"]
