import pytest
import torch
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from reg2rg.core.errors import ConfigError
from reg2rg.models.llm.base import END, Decoding, Sampling
from reg2rg.models.llm.cache import closed_up
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.llm.decoding import FreeAnswer, ends_in_loop, kept_probabilities
from reg2rg.models.llm.reading import left_padded, of_one_length
from reg2rg.models.llm.skinny_linear import products_in_parts

NO_LOOP = Decoding(max_new_tokens=40, stop_on_loop=0)


def prompts(model: CausalLM, lengths=(19, 7, 13, 19, 3)):
    generator = torch.Generator().manual_seed(2)
    longest = max(lengths)
    ids = torch.randint(5, len(model.tokenizer), (len(lengths), longest), generator=generator)
    return ids, (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    lm = CausalLM(request.getfixturevalue(f"{request.param}_folder")).eval()
    with torch.no_grad():  # make EOS likely enough that rows end at different steps
        for parameter in lm.parameters():
            parameter.mul_(2.5)
    return lm


def test_equals_huggingface_generate(model):
    ids, mask = prompts(model)
    some_end = frozenset(range(5, 40))
    model.eos_ids = some_end
    ours = model.decode(model.embed(ids), mask, NO_LOOP)
    for row, found in enumerate(ours):
        alone = ids[row, : int(mask[row].sum())].unsqueeze(0)
        theirs = model.model.generate(
            input_ids=alone,
            attention_mask=torch.ones_like(alone),
            do_sample=False,
            max_new_tokens=40,
            eos_token_id=sorted(some_end),
            pad_token_id=0,
        )[0, alone.shape[1] :].tolist()
        assert found.truncated == (theirs[-1] not in some_end)
        assert found.ids == (theirs if found.truncated else theirs[:-1])
    assert len({len(found.ids) for found in ours}) > 1, "rows must end at different steps for this test to say anything"


def test_batch_of_one_equals_batch_of_many(model):
    ids, mask = prompts(model)
    model.eos_ids = frozenset(range(5, 40))
    together = model.decode(model.embed(ids), mask, NO_LOOP)
    for size in (1, 2):
        parts = [
            model.decode(model.embed(ids[i : i + size]), mask[i : i + size], NO_LOOP) for i in range(0, len(ids), size)
        ]
        assert [found for part in parts for found in part] == together


def test_prompts_of_one_length_are_read_together_without_padding(model):
    ids, mask = prompts(model)
    seen = []
    handle = model.model.register_forward_pre_hook(
        lambda _, __, options: seen.append(tuple(options["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    model.decode(model.embed(ids), mask, Decoding(max_new_tokens=1))
    handle.remove()
    assert sorted(seen) == [(1, 3), (1, 7), (1, 13), (2, 19)]


def test_many_prompts_are_read_in_groups():
    assert list(of_one_length([1000, 900, 1000, 1000, 5000])) == [[0, 2], [3], [1], [4]]


def test_a_model_that_keeps_a_window_reads_its_prompts_together(tmp_path, llama_folder):
    folder = CausalLM(llama_folder)
    config = MistralConfig(
        vocab_size=len(folder.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, sliding_window=6,
    )  # fmt: skip
    torch.manual_seed(0)
    MistralForCausalLM(config).save_pretrained(tmp_path)
    folder.tokenizer.save_pretrained(tmp_path)
    lm = CausalLM(str(tmp_path)).eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(2.5)
    ids, mask = prompts(lm)
    lm.eos_ids = frozenset(range(5, 40))
    together = lm.decode(lm.embed(ids), mask, NO_LOOP)
    for row, length in enumerate(mask.sum(1).tolist()):
        theirs = lm.model.generate(
            input_ids=ids[row : row + 1, :length], do_sample=False, max_new_tokens=40,
            eos_token_id=sorted(lm.eos_ids), pad_token_id=0,
        )[0, length:].tolist()  # fmt: skip
        assert together[row].ids == [token for token in theirs if token not in lm.eos_ids]
    assert len({len(found.ids) for found in together}) > 1


@pytest.mark.parametrize(
    ("places", "expected"),
    [([0, 1, 2], [0, 1, 2]), ([0, 2, 3, 4], [0, 4, 2, 3]), ([3], [3]), ([1, 2], [2, 1]), ([0, 4], [0, 4]), ([], [])],
)
def test_closed_up(places, expected):
    assert closed_up(places) == expected


def test_closing_up_never_overwrites_a_row_that_is_still_to_move():
    for size in range(1, 7):
        for bits in range(1 << size):
            order = closed_up([place for place in range(size) if bits >> place & 1])
            assert all(row == place or row >= len(order) for place, row in enumerate(order))
            assert sorted(order) == [place for place in range(size) if bits >> place & 1]


def test_products_in_parts_are_the_same_and_end():
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(
        [torch.nn.Linear(8, 50, bias=bias) for bias in (True, False)] + [torch.nn.Linear(8, 5)]
    )
    inputs = torch.randn(3, 1, 8)
    plain = [layer(inputs) for layer in layers]
    with products_in_parts(layers, largest=10 * 8 * 4):
        assert ["forward" in vars(layer) for layer in layers] == [True, True, False]
        for layer, expected in zip(layers, plain, strict=True):
            torch.testing.assert_close(layer(inputs), expected)
            assert layer(inputs.expand(40, 3, 1, 8)).shape == (40, 3, 1, len(layer.weight))
    assert not any("forward" in vars(layer) for layer in layers)


def test_left_padding_gives_the_same(model):
    ids, mask = prompts(model)
    embeddings = model.embed(ids)
    moved, moved_mask = left_padded(embeddings, mask)
    assert moved_mask[:, -1].all()
    assert model.decode(embeddings, mask, NO_LOOP) == model.decode(moved, moved_mask, NO_LOOP)


def test_decode_returns_ids(model):
    ids, mask = prompts(model)
    generated = model.decode(model.embed(ids), mask, Decoding(max_new_tokens=3))
    assert [len(row.ids) <= 3 for row in generated] == [True] * len(ids)


def test_decode_keeps_the_mode(model):
    ids, mask = prompts(model, (4,))
    model.train()
    model.decode(model.embed(ids), mask, Decoding(max_new_tokens=2))
    assert model.training


class Only(FreeAnswer):
    """Allows one token at each step."""

    def __init__(self, decoding, wanted):
        super().__init__(decoding)
        self.wanted = wanted

    def allows(self, token):
        return token == self.wanted(len(self.ids))

    def allowed(self):
        wanted = self.wanted(len(self.ids))
        return None if wanted == END else [wanted]


def test_guides_are_obeyed(model):
    ids, mask = prompts(model)
    model.eos_ids = frozenset({9})
    guides = [Only(NO_LOOP, lambda step, row=row: END if step == row else 10 + row) for row in range(len(ids))]
    found = model.decode(model.embed(ids), mask, NO_LOOP, guides)
    assert [generation.ids for generation in found] == [[10 + row] * row for row in range(len(ids))]
    assert not any(generation.truncated for generation in found)


def test_a_refused_token_is_replaced_by_the_next_likeliest(model):
    """Refusing what free decoding begins with gives what comes second in the logits of the prompt."""
    ids, mask = prompts(model, (9,))
    model.eos_ids = frozenset()
    with torch.no_grad():
        best = model.model(input_ids=ids).logits[0, -1].topk(3).indices.tolist()

    class Without(FreeAnswer):
        def allows(self, token):
            return token not in best[:2]

    limits = Decoding(max_new_tokens=1)
    assert model.decode(model.embed(ids), mask, limits, [Without(limits)])[0].ids == best[2:]


class Looks(FreeAnswer):
    """Reads two branches beside each token, and their children."""

    def __init__(self, decoding):
        super().__init__(decoding)
        self.seen = []

    def look(self, token, logits, branches):
        read = branches()
        first = read([0, 0], [20, 21])
        self.seen.append((list(self.ids), first, read([1, 0, 1], [22, 23, 24])))


def test_branches_are_what_the_model_says_of_another_answer(model):
    ids, mask = prompts(model)
    limits = Decoding(max_new_tokens=3, stop_on_loop=0)
    model.eos_ids = frozenset()
    guides = [Looks(limits) for _ in ids]
    found = model.decode(model.embed(ids), mask, limits, guides)
    assert found == model.decode(model.embed(ids), mask, limits), "branches leave no trace in the answers"
    for row, guide in enumerate(guides):
        prompt = ids[row, : int(mask[row].sum())].tolist()
        for so_far, first, second in guide.seen:
            texts = [[20], [21], [21, 22], [20, 23], [21, 24]]
            for logits, behind in zip([*first, *second], texts, strict=True):
                whole = torch.tensor([[*prompt, *so_far, *behind]])
                with torch.no_grad():
                    wanted = model.model(input_ids=whole).logits[0, -1]
                torch.testing.assert_close(logits, wanted, rtol=1e-3, atol=1e-4)


def test_loop_stops_and_is_flagged(model):
    ids, mask = prompts(model, (5, 6))
    model.eos_ids = frozenset()
    limits = Decoding(max_new_tokens=100, stop_on_loop=4)
    found = model.decode(model.embed(ids), mask, limits, [Only(limits, lambda step: 20 + step % 7) for _ in ids])
    assert [len(generation.ids) for generation in found] == [28, 28]
    assert all(generation.truncated for generation in found)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, 2, 3, 4, 5] * 4, True),
        ([9, 9] + [1, 2, 3, 4, 5] * 4, True),
        ([1, 2, 3, 4, 5] * 3, False),
        ([7] * 16, True),
        ([7] * 15, False),
        ([1, 2] * 8, True),
        (list(range(100)), False),
        ([], False),
    ],
)
def test_ends_in_loop(ids, expected):
    assert ends_in_loop(ids, 4, 64) is expected


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=1.7, top_k=0, top_p=0.5), Sampling(0.2, 3, 1.0), Sampling(1.0, 0, 1.0)],
)
def test_what_may_be_drawn_is_what_huggingface_keeps(sampling):
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * 3
    theirs = TemperatureLogitsWarper(sampling.temperature)(None, logits)
    theirs = TopKLogitsWarper(sampling.top_k or 40)(None, theirs)
    theirs = TopPLogitsWarper(sampling.top_p)(None, theirs).softmax(-1)
    shares, tokens = kept_probabilities(logits, sampling)
    ours = torch.zeros_like(theirs).scatter(1, tokens, shares)
    torch.testing.assert_close(ours, theirs)


def test_draws_follow_the_probabilities(model):
    """One step of many rows of the same prompt: shares of tokens as large as their probabilities."""
    ids, mask = prompts(model, lengths=(9,))
    sampling, many = Sampling(temperature=4.0, top_k=5, top_p=1.0), 4000
    with torch.no_grad():
        logits = model.model(input_ids=ids).logits[:, -1]
    shares, tokens = kept_probabilities(logits, sampling)
    model.eos_ids = frozenset()
    limits = Decoding(max_new_tokens=1, sampling=sampling)
    names = [f"study {i}" for i in range(many)]
    found = model.decode(model.embed(ids).expand(many, -1, -1), mask.expand(many, -1), limits, names=names)
    counts = torch.tensor([sum(one.ids == [int(token)] for one in found) for token in tokens[0]])
    assert counts.sum() == many
    deviation = (shares[0] * (1 - shares[0]) / many).sqrt()
    assert ((counts / many - shares[0]).abs() < 4 * deviation + 1e-9).all()


def test_what_a_row_draws_follows_from_seed_and_name_alone(model):
    ids, mask = prompts(model)
    model.eos_ids = frozenset(range(5, 40))
    names = [f"s{i}" for i in range(len(ids))]

    def run(rows, seed=20, named=True):
        limits = Decoding(max_new_tokens=40, stop_on_loop=0, sampling=Sampling(temperature=3.0, seed=seed))
        given = [names[row] for row in rows] if named else ()
        return model.decode(model.embed(ids[rows]), mask[rows], limits, names=given)

    together = run([0, 1, 2, 3, 4])
    assert run([0, 1, 2, 3, 4]) == together
    assert [found for row in range(5) for found in run([row])] == together
    assert run([4, 2, 0]) == [together[4], together[2], together[0]]
    assert run([0, 1, 2, 3, 4], seed=21) != together
    assert run([0, 1, 2, 3, 4], named=False) != together
    assert together != model.decode(model.embed(ids), mask, NO_LOOP)


def test_sampling_with_one_candidate_is_greedy(model):
    ids, mask = prompts(model)
    limits = Decoding(max_new_tokens=40, stop_on_loop=0, sampling=Sampling(top_k=1))
    assert model.decode(model.embed(ids), mask, limits) == model.decode(model.embed(ids), mask, NO_LOOP)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_sampling_refuses_what_cannot_be(wrong):
    with pytest.raises(ConfigError, match="for greedy decoding set sampling to null"):
        Sampling(**wrong)
