import math

import torch
import torch.nn.functional as F

from reg2rg.models.word_alignment import WordAlignment


def test_loss_is_the_cross_entropy_written_out():
    torch.manual_seed(0)
    module = WordAlignment(7).double()
    with torch.no_grad():
        module.bias.normal_()
        module.scale.fill_(0.3)
    tokens, table = torch.randn(3, 2, 5).double(), torch.randn(7, 5).double()
    labels, regions = torch.tensor([1, 4, 4, 2, 6]), torch.tensor([0, 0, 2, 2, -1])
    wanted = 0.0
    present = {(0, 1), (0, 4), (2, 4), (2, 2)}
    for n in range(3):
        for v in range(7):
            dots = [math.exp(float(tokens[n, t] @ table[v]) * math.exp(0.3) / math.sqrt(5)) for t in range(2)]
            logit = math.log(sum(dots) / 2) + 10 * float(module.bias[v])
            probability = 1 / (1 + math.exp(-logit))
            wanted -= math.log(probability if (n, v) in present else 1 - probability)
    assert math.isclose(float(module(tokens, table, labels, regions)), wanted, rel_tol=1e-5)


def test_gradient_reaches_the_visual_tokens_and_not_the_token_table():
    module = WordAlignment(7)
    tokens, table = torch.randn(2, 3, 5, requires_grad=True), torch.randn(7, 5, requires_grad=True)
    module(tokens, table, torch.tensor([1, 2]), torch.tensor([0, 1])).backward()
    assert table.grad is None
    assert tokens.grad.abs().sum() > 0
    assert all(p.grad is not None for p in module.parameters())


def test_training_makes_tokens_show_their_words():
    torch.manual_seed(0)
    module, table = WordAlignment(20), torch.randn(20, 16)
    tokens = torch.nn.Parameter(torch.randn(2, 3, 16) * 0.1)
    labels, regions = torch.tensor([3, 5, 7]), torch.tensor([0, 0, 1])
    optimizer = torch.optim.Adam([tokens, *module.parameters()], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        module(tokens, table, labels, regions).backward()
        optimizer.step()
    shown = (tokens @ table.T).amax(1)
    assert set(shown[0].topk(2).indices.tolist()) == {3, 5}
    assert shown[1].argmax() == 7
    assert F.cosine_similarity(tokens[1], table[7][None]).max() > 0.5
