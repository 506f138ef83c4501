"""What holding reports to their form costs: free decoding beside constrained decoding of the same tokens.

    python benchmarks/constrained.py           6 layers of width 512, prompts of 526 positions, eight reports at once
    python benchmarks/constrained.py --quick   2 layers of width 256, two reports

The model is random, and its logits are moved so that it writes a report of ten regions in its form by itself, as a
trained one does; so both sides write the same tokens, which is checked. Sides take turns; best of all repeats. Exit
status 1 when the tokens differ, a report is not as it should be, or constrained decoding takes more than 1.05 times the
time: of the CPU on a CPU, else of the clock.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path

import torch
from _measure import machine, take_turns
from generate import read_options
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from reg2rg.core.regions import load_region_set
from reg2rg.core.report import parse_report, write_report
from reg2rg.models.constrained import Frames, ReportGuide
from reg2rg.models.llm.base import Decoding
from reg2rg.models.llm.causal_lm import CausalLM

SIZES = {
    "full": {"layers": 6, "width": 512, "rows": 8},
    "quick": {"layers": 2, "width": 256, "rows": 2},
}
VOCABULARY, PROMPT, BAR = 32000, 526, 1.05
REGIONS = load_region_set("radgenome").names
WORDS = "no heart is enlarged calcified wall nodule of 5 mm effusion in left lobe normal size".split()  # noqa: SIM905


def reports(count: int) -> list[str]:
    draws = random.Random(0)
    said = []
    for _ in range(count):
        texts = [f"{' '.join(draws.choices(WORDS, k=18)).capitalize()}." for _ in REGIONS]
        said.append(write_report(draws.sample(REGIONS, len(REGIONS)), texts))
    return said


def build(size: dict, folder: Path) -> None:
    torch.manual_seed(0)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    options = {"special_tokens": ["<s>", "</s>"], "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    backend.train_from_iterator(reports(200), trainers.BpeTrainer(vocab_size=VOCABULARY, **options))
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=size["width"],
        intermediate_size=size["width"] * 11 // 4,
        num_hidden_layers=size["layers"],
        num_attention_heads=size["width"] // 64,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


class Script:
    """Moves a model's logits towards a text, token by token."""

    def __init__(self, model: CausalLM, ids: list[int]) -> None:
        self.ids, self.step = ids, 0
        model.model.register_forward_hook(self, with_kwargs=True)

    def __call__(self, module, args, options, output):
        self.step = 0 if options.get("inputs_embeds") is not None else self.step + 1
        output.logits[:, -1, self.ids[min(self.step, len(self.ids) - 1)]] += 30
        return output


def main() -> int:
    options = read_options(__doc__, repeats=5)
    size = SIZES["quick" if options.quick else "full"]
    with tempfile.TemporaryDirectory() as folder:
        build(size, Path(folder))
        model = CausalLM(folder).eval().to(options.device)
    [text] = reports(1)
    given = [part.split(":")[0] for part in text.split(" is ") if ":" in part and part.split(":")[0] in REGIONS]
    script = [*model.tokenizer(" " + text)["input_ids"], model.tokenizer.eos_token_id]
    Script(model, script)
    embeddings = torch.randn(size["rows"], PROMPT, size["width"], device=options.device)
    mask = torch.ones(size["rows"], PROMPT, dtype=torch.long, device=options.device)
    frames = Frames(model.tokenizer, REGIONS)
    decoding = Decoding(max_new_tokens=len(script) + 8)
    guides: list[ReportGuide] = []

    def free() -> list[list[int]]:
        with torch.no_grad():
            return [answer.ids for answer in model.decode(embeddings, mask, decoding)]

    def constrained() -> list[list[int]]:
        guides[:] = [ReportGuide(frames, given, decoding, 1 << 30, False) for _ in range(size["rows"])]
        with torch.no_grad():
            return [answer.ids for answer in model.decode(embeddings, mask, decoding, guides)]

    constrained()  # what is made once for a model is made
    print(f"{options.device}, torch {torch.__version__}; {machine(options.threads)}", flush=True)
    results = take_turns({"free": free, "constrained": constrained}, options.repeats)
    theirs, mine = results["free"], results["constrained"]
    print(f"{'':12}{'wall s':>9}{'CPU s':>9}")
    for name, result in results.items():
        print(f"{name:12}{result.wall:9.3f}{result.cpu:9.3f}")
    same = theirs.output == mine.output == [script[:-1]] * size["rows"]
    read = parse_report(guides[0].text(), given)
    same &= len(read.paragraphs) == len(given) and not (read.invalid or read.duplicate or read.missing)
    ratio = mine.cpu / theirs.cpu if options.device == "cpu" else mine.wall / theirs.wall
    if options.json:
        options.json.write_text(json.dumps({"free": theirs.cpu, "constrained": mine.cpu, "equal": same}, indent=2))
    met = same and ratio <= BAR
    tokens = size["rows"] * (len(script) - 1)
    print(f"tokens equal: {same} ({tokens} of them); {ratio:.3f} x (bar {BAR}): {'met' if met else 'missed'}")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
