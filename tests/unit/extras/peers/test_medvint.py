"""ModifiedResNet, QueryDecoder and SwinDepthChannels: what a batch must not do, and sizes."""

import pytest
import torch

from reg2rg.extras.peers import ModifiedResNet, QueryDecoder, SwinDepthChannels

SIZE = (32, 32, 6)


def resnet(**changes: object) -> ModifiedResNet:
    torch.manual_seed(0)
    arguments: dict[str, object] = {"size": SIZE, "image_size": 32, "width": 16, "blocks": (1, 1, 1)}
    return ModifiedResNet(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_batch_mates_do_not_matter_in_training_either(norm: str) -> None:
    net, volumes = resnet(norm=norm).train(), torch.rand(3, 1, *SIZE)
    torch.testing.assert_close(net(volumes)[1:2], net(volumes[1:2]), rtol=0, atol=1e-5)


def test_statistics_stay_and_gains_train() -> None:
    net = resnet().train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net(torch.rand(2, 1, *SIZE)).sum().backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())
    assert net.norm1.weight.grad is not None
    assert len(before) == 2 * (3 + 3 * 3 + 3)


def test_parameters_at_the_published_size() -> None:
    """Sums over the list of published keys, without buffers."""
    with torch.device("meta"):
        net = ModifiedResNet((256, 256, 3))
        decoder = QueryDecoder(net)
    assert net.num_tokens == 1024
    assert sum(p.numel() for p in net.parameters()) == 8_562_528
    assert sum(p.numel() for p in decoder.parameters()) - 8_562_528 == 126_060_544


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: resnet(image_size=40), "image_size is 40, expected a multiple of 16"),
        (lambda: resnet(width=15), "width 15, .* expected an even width, and blocks"),
        (lambda: resnet(blocks=(1, 0, 1)), r"blocks \(1, 0, 1\): expected"),
        (lambda: QueryDecoder(resnet(), heads=7), "7 heads on a width of 256"),
        (lambda: QueryDecoder(resnet(), num_queries=0), "0 queries"),
        (
            lambda: SwinDepthChannels(SIZE, image_size=30, depths=(1, 1), heads=(2, 4)),
            "expected a multiple of 8: patches",
        ),
        (lambda: SwinDepthChannels(SIZE, depths=(1, 1), heads=(2,)), "expected one of each for a stage"),
    ],
)
def test_refuses_sizes_that_cannot_be(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


def test_swin_at_the_published_size() -> None:
    """49 tokens x 1,024, and timm's parameters of Swin-B but for the 64 channels and the classifier."""
    with torch.device("meta"):
        swin = SwinDepthChannels((256, 256, 64))
    assert (swin.num_tokens, swin.out_channels) == (49, 1024)
    assert sum(p.numel() for p in swin.parameters()) == 86_743_224 + 128 * (64 - 3) * 16
