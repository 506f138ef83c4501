import pytest
import torch
import torch.nn.functional as F

from reg2rg.models.llm.loss import token_nll


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_cross_entropy(dtype):
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 50).to(dtype)
    hidden, labels = torch.randn(30, 8, dtype=dtype), torch.randint(50, (30,))
    weights = torch.rand(30)
    results = []
    for nll in (token_nll, lambda logits, wanted: F.cross_entropy(logits.float(), wanted, reduction="none")):
        inputs = hidden.clone().requires_grad_()
        losses = nll(head(inputs), labels)
        (losses * weights).sum().backward()
        results.append((losses.detach(), inputs.grad))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-6)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-6)


def test_large_logits_and_no_grad():
    logits = torch.tensor([[1e4, 0.0, -1e4]])
    with torch.no_grad():
        assert token_nll(logits.clone(), torch.tensor([0])).item() == 0
        assert token_nll(logits.clone(), torch.tensor([2])).item() == 2e4


def test_reuse_is_an_error_not_a_wrong_gradient():
    hidden = torch.randn(3, 4, requires_grad=True)
    logits = hidden.exp()  # exp keeps its output for the backward pass
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        token_nll(logits, torch.tensor([0, 1, 2])).sum().backward()
    loss = token_nll(hidden * 2, torch.tensor([0, 1, 2])).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_no_labels():
    assert token_nll(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)).shape == (0,)
