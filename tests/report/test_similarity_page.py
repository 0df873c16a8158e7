"""The page of similarities: whole, alone, accessible, and with the numbers that the API gives."""

import json
import re
import shutil
import subprocess

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.beliefs.grouping import neighbours
from priorscope.data.collection import Collection
from priorscope.errors import DataError, ModelError
from priorscope.network.readouts import named_readout
from priorscope.report.similarity_page import similarity_page

N = 12


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 16), nn.ReLU(), nn.Linear(16, 4))


def pictures():
    items = torch.randint(0, 255, (N, 3, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    names = tuple(f"picture <{i}>" for i in range(N))
    collection = Collection("tests", "pictures", items, names, tuple("abc"[i % 3] for i in range(N)))
    return collection, items.to(torch.float32) / 255


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("similar")
    torch.set_default_dtype(torch.float32)
    result = similarity_page(network(), *pictures(), readout="projection", out=folder, queries=4, seed=2)
    return folder, result


def test_the_page_is_whole_and_stands_alone(page):
    folder, result = page
    html = (folder / "index.html").read_text()
    assert result.page == str(folder / "index.html")
    assert not re.search(r'(src|href)="(https?:)?//', html)
    assert html.count("<img") == html.count('alt="picture &lt;') == 4 * (1 + 2 * 5)
    assert "picture <" not in html
    assert "✓" in html
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert all(sentence in html.replace("&#39;", "'") for sentence in result.sentences)
    assert {p.name for p in (folder / "figures").iterdir()} == {"similarities.svg", "similarities.png"}


def test_its_numbers_are_those_of_the_api(page):
    folder, result = page
    numbers = json.loads((folder / "similar.json").read_text())
    collection, x = pictures()
    torch.set_default_dtype(torch.float32)
    model = network()
    kernel = ps.EmpiricalNTK(model, readout=named_readout("projection", 2).function)
    cosines = ps.cosine(kernel, x)
    assert torch.allclose(torch.tensor(numbers["similarities"]["kernel"]), cosines, atol=1e-5)
    assert numbers["nearest"]["kernel"] == neighbours(result.similarities.kernel)[:, :5].tolist()
    hidden = torch.nn.functional.normalize(model[:3](x).detach(), dim=1)
    assert torch.allclose(torch.tensor(numbers["similarities"]["features"]), hidden @ hidden.T, atol=1e-5)
    assert numbers["plan"].startswith("trace of 12 x 12 points")
    assert numbers["seconds"] > 0
    assert "GB" in numbers["facts"]["time and memory"]
    assert numbers["similarities"]["groups"] == list(collection.groups)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on this machine")
def test_the_page_fits_its_window(page, tmp_path):
    folder, _ = page
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,3000"]
    picture = tmp_path / "page.png"
    url = f"file://{folder / 'index.html'}"
    subprocess.run([*command, f"--screenshot={picture}", url], capture_output=True, timeout=60, check=True)
    import matplotlib.image

    columns = (matplotlib.image.imread(picture)[..., :3] < 0.5).any(axis=(0, 2))
    assert columns.any()
    assert not columns[:20].any()
    assert not columns[-20:].any()


def test_sentences_and_numbers_without_groups(tmp_path):
    sentences = Collection("lines", "sentences", ("One & two.", "Three.", "Four."), ("1", "2", "3"))
    x = torch.randn(3, 5)
    result = similarity_page(nn.Linear(5, 1), sentences, x, features="output", out=tmp_path / "s")
    html = (tmp_path / "s" / "index.html").read_text()
    assert "One &amp; two." in html
    assert "have no groups" in result.sentences[1]
    rows = Collection("rows", "points", x, ("a", "b", "c"), ("p", "p", "q"))
    similarity_page(nn.Linear(5, 1), rows, x, features=lambda model, points: points, out=tmp_path / "r")
    assert "<img" not in (tmp_path / "r" / "index.html").read_text()


def test_what_cannot_be_right_raises_before_anything_is_written(tmp_path):
    collection, x = pictures()
    out = tmp_path / "never"
    for changes, error, message in [
        ({"readout": "best"}, ModelError, "is not known"),
        ({"features": "all"}, DataError, "is not known"),
        ({"queries": 0}, DataError, "queries"),
    ]:
        with pytest.raises(error, match=message):
            similarity_page(network(), collection, x, out=out, **changes)
    with pytest.raises(DataError, match="has 11 inputs"):
        similarity_page(network(), collection, x[:-1], out=out)
    with pytest.raises(ModelError, match="training mode"):
        similarity_page(nn.Sequential(network(), nn.Dropout()), collection, x, out=out)
    assert not out.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        similarity_page(network(), collection, x, out=tmp_path / "file")
