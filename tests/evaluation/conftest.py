from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nuwa_lip.evaluation.store import Store


@pytest.fixture
def measured_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Photos whose figures this process has kept, not those of its helpers."""
    names: list[str] = []
    save = Store.save

    def recorded(store: Store, name: str, arrays: Mapping[str, Any]) -> None:
        names.append(name)
        save(store, name, arrays)

    monkeypatch.setattr(Store, "save", recorded)
    return names
