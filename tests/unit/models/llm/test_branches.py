"""Reading beside an answer, for caches of every kind: windows, states, latent keys."""

import pytest
import torch

from families import save_tiny
from reg2rg.models.llm.base import Decoding
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.llm.decoding import FreeAnswer


class Looks(FreeAnswer):
    def __init__(self, decoding):
        super().__init__(decoding)
        self.seen = []

    def look(self, token, logits, branches):
        read = branches()
        first = read([0, 0], [20, 21])
        self.seen.append((list(self.ids), first, read([1, 0, 1], [22, 23, 24])))


@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "deepseek_v3", "bamba", "lfm2", "qwen3_next", "falcon"])
def test_branches_are_an_uncached_reading_and_leave_no_trace(tmp_path, family):
    model = CausalLM(str(save_tiny(family, tmp_path))).eval()
    model.eos_ids = frozenset()
    torch.manual_seed(1)
    lengths, limits = (13, 9), Decoding(max_new_tokens=3, stop_on_loop=0)
    prompts = [model.embed(torch.randint(4, 90, (1, n))).detach() for n in lengths]
    padded = torch.cat([torch.nn.functional.pad(one, (0, 0, 13 - one.shape[1], 0)) for one in prompts])
    mask = torch.tensor([[0] * (13 - n) + [1] * n for n in lengths])
    guides = [Looks(limits) for _ in lengths]
    assert model.decode(padded, mask, limits, guides) == model.decode(padded, mask, limits)
    for prompt, guide in zip(prompts, guides, strict=True):
        for so_far, first, second in guide.seen:
            texts = [[20], [21], [21, 22], [20, 23], [21, 24]]
            for logits, behind in zip([*first, *second], texts, strict=True):
                read = torch.cat([prompt, model.embed(torch.tensor([[*so_far, *behind]]))], dim=1)
                with torch.no_grad():
                    wanted = model._causal(inputs_embeds=read, use_cache=False).logits[0, -1]
                torch.testing.assert_close(logits, wanted, rtol=1e-3, atol=1e-3)
