"""docs/limits.md is what the registry and the committed measurements make."""

import importlib.util
import json
from pathlib import Path

import priorscope.kernels.infinite.table as table

DOCS = Path(__file__).parents[3] / "docs"


def test_the_table_of_rules_is_up_to_date(monkeypatch):
    spec = importlib.util.spec_from_file_location("limits", DOCS / "limits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # What other tests register is not the package's.
    theirs = [k for k in table.RULES if isinstance(k, type) and not k.__module__.startswith(("torch.", "priorscope."))]
    ours = {k: rule for k, rule in table.RULES.items() if k not in theirs}
    monkeypatch.setattr(table, "RULES", ours)
    measured = json.loads((DOCS / "limits.json").read_text())
    assert (DOCS / "limits.md").read_text() == module.page(measured), "run: python docs/limits.py"


def test_every_rule_is_in_it_with_an_equation():
    entries = table.entries()
    assert len(entries) > 30
    assert all(entry.equation and entry.layers for entry in entries)
    names = {name for entry in entries for name in entry.layers}
    assert {"nn.Linear", "nn.Conv2d", "F.relu", "torch.erf"} <= names
