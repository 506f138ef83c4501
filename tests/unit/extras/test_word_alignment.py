import math
import re

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from ranks import Save
from reg2rg.core.errors import ConfigError
from reg2rg.extras.word_alignment import WordAlignment, WordLoss
from reg2rg.pretrained.saving import folder_names
from reg2rg.training.checkpoints import read_checkpoint

ENCODERS = ("texture", "geometry", "global_")


def test_loss_is_the_cross_entropy_written_out():
    torch.manual_seed(0)
    module = WordLoss(7).double()
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
    assert math.isclose(float(module.cross_entropy(tokens, table, labels, regions)), wanted, rel_tol=1e-5)


def test_gradient_reaches_the_visual_tokens_and_not_the_token_table():
    module = WordLoss(7)
    tokens, table = torch.randn(2, 3, 5, requires_grad=True), torch.randn(7, 5, requires_grad=True)
    module.cross_entropy(tokens, table, torch.tensor([1, 2]), torch.tensor([0, 1])).backward()
    assert table.grad is None
    assert tokens.grad.abs().sum() > 0
    assert all(p.grad is not None for p in module.parameters())


def test_training_makes_tokens_show_their_words():
    torch.manual_seed(0)
    module, table = WordLoss(20), torch.randn(20, 16)
    tokens = torch.nn.Parameter(torch.randn(2, 3, 16) * 0.1)
    labels, regions = torch.tensor([3, 5, 7]), torch.tensor([0, 0, 1])
    optimizer = torch.optim.Adam([tokens, *module.parameters()], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        module.cross_entropy(tokens, table, labels, regions).backward()
        optimizer.step()
    shown = (tokens @ table.T).amax(1)
    assert set(shown[0].topk(2).indices.tolist()) == {3, 5}
    assert shown[1].argmax() == 7
    assert F.cosine_similarity(tokens[1], table[7][None]).max() > 0.5


@pytest.mark.parametrize("target", ["regions", "joined"])
def test_words_are_aligned_with_regions_or_without_them_with_the_whole_image(toy, target):
    """Against plain loops: a region's tokens with its paragraph, or the image's with all that is said."""
    alone = target == "joined"
    off = {"texture": None, "geometry": None, "global_": toy.encoder(6)} if alone else {}
    module = toy.module(dropout=0.0, **off)
    WordAlignment().setup(L.Trainer(logger=False), module, "fit")
    data, reporter = toy.data(module, target=target), module.reporter
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    counts, table = reporter.token_counts, reporter.visual_table(batch)
    vocabulary = reporter.llm.embed(torch.arange(len(reporter.llm.tokenizer))[None])[0]
    expected, first, label, region = 0.0, 4 if alone else 4 + len(batch) * counts.global_, 0, 0
    for row, regions in enumerate(batch.regions):
        said = batch.labels[row][batch.labels[row] != -100]
        owner = batch.label_region[label : label + len(said)]
        texts = [said] if alone else [said[owner == region + i] for i in range(len(regions))]
        for words in texts:
            tokens = table[first : first + (counts.global_ if alone else counts.region)][None]
            expected += reporter.auxiliary["word"].cross_entropy(tokens, vocabulary, words, torch.zeros_like(words))
            first += tokens.shape[1]
        label, region = label + len(said), region + len(regions)
    assert first == len(table)
    weight, loss = reporter.losses(batch, write=False).auxiliary["word"]
    assert weight == 0.5
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-3)
    loss.backward()
    assert (reporter.global_ if alone else reporter.texture).conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("weight", "stage", "off"), [(0.0, "fit", {}), (0.5, "predict", {}), (0.5, "fit", dict.fromkeys(ENCODERS))]
)
def test_what_does_not_train_or_has_no_visual_tokens_goes_without(toy, weight, stage, off):
    module = toy.module(**off)
    WordAlignment(weight, steps=2).setup(L.Trainer(logger=False), module, stage)
    assert not module.reporter.auxiliary
    assert module.reporter.auxiliary.alone == 0


@pytest.fixture(scope="module")
def stopped(toy, tmp_path_factory):
    """A run of four steps, the first two of words alone; and its checkpoint after step 3."""
    path = tmp_path_factory.mktemp("words") / "a.ckpt"
    module, save = toy.module(seed=1), Save(path, 3)
    trainer(toy, WordAlignment(steps=2), save, max_steps=4).fit(module, datamodule=toy.data(module))
    return module, path


def trainer(toy, *callbacks, **options):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return L.Trainer(accelerator="cpu", callbacks=list(callbacks), default_root_dir=toy.root, **quiet, **options)


def test_a_run_goes_on_with_what_the_loss_has_learnt(toy, stopped, caplog):
    whole, path = stopped
    names = {name for name in read_checkpoint(path)["state_dict"] if "auxiliary" in name}
    assert names == {"reporter.auxiliary.word.bias", "reporter.auxiliary.word.scale"}
    module = toy.module(seed=1)
    trainer(toy, WordAlignment(steps=2), max_steps=4).fit(module, datamodule=toy.data(module), ckpt_path=path)
    for name, value in whole.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name
    assert "WordAlignment" not in caplog.text
    module = toy.module(seed=1)
    trainer(toy, WordAlignment(steps=1), max_steps=4).fit(module, datamodule=toy.data(module), ckpt_path=path)
    assert re.search(r"other settings than the checkpoint's: .*'steps': 2\} -> .*'steps': 1\}", caplog.text)


def test_without_it_a_run_does_not_go_on(toy, stopped):
    module = toy.module(seed=1)
    with pytest.raises(ConfigError, match=r"other numbers of tensors that train \(vision_no_decay"):
        trainer(toy, max_steps=4).fit(module, datamodule=toy.data(module), ckpt_path=stopped[1])


def test_a_run_without_it_does_not_go_on_with_it(toy, tmp_path):
    module, path = toy.module(seed=1), tmp_path / "b.ckpt"
    trainer(toy, Save(path, 1), max_steps=1).fit(module, datamodule=toy.data(module))
    with pytest.raises(ConfigError, match=r"other numbers of tensors that train"):
        trainer(toy, WordAlignment(), max_steps=2).fit(module, datamodule=toy.data(module), ckpt_path=path)


def test_a_model_that_reports_does_without_its_weights(toy, stopped):
    whole, path = stopped
    module = toy.module(seed=2)
    trainer(toy).validate(module, datamodule=toy.data(module), ckpt_path=path, verbose=False)
    assert not module.reporter.auxiliary
    saved = read_checkpoint(path)["state_dict"]
    assert torch.equal(module.reporter.texture.conv.weight, saved["reporter.texture.conv.weight"])
    assert set(folder_names(whole, whole.reporter.llm)) == set(folder_names(module, module.reporter.llm))
