"""Who is compared: the peers, and each peer's ways of computing a kernel, of which the fastest one counts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WITHOUT_THUNKS = {"XLA_FLAGS": "--xla_cpu_use_thunk_runtime=false"}


@dataclass(frozen=True, eq=False)
class Way:
    """options: what the method's file is told. environment: variables of its process."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Peer:
    """module: its file in `peers/`. home: its environment in environments.py. cross: whether it takes other points."""

    name: str
    module: str
    home: str | None
    ways: tuple[Way, ...]
    cross: bool = True


def _tangents(name: str, implementation: str, **options: Any) -> tuple[Way, Way]:
    chosen = {"implementation": implementation, **options}
    return Way(name, chosen), Way(f"{name}, no thunks", chosen, WITHOUT_THUNKS)


OURS = Peer("ours", "ours", None, (Way("EmpiricalNTK"),))
OURS_LIMITS = Peer("ours", "ours_limits", None, (Way("infinite_width"),))
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "tutorial", "tutorial", None, (Way("jacobians", {"way": "jacobians"}), Way("products", {"way": "products"}))
        ),
        Peer(
            "neural-tangents",
            "tangents",
            "neural-tangents",
            (
                *_tangents("contraction", "JACOBIAN_CONTRACTION"),
                *_tangents("contraction, batches of 32", "JACOBIAN_CONTRACTION", batch=32),
                *_tangents("products", "NTK_VECTOR_PRODUCTS"),
                Way("structured", {"implementation": "STRUCTURED_DERIVATIVES"}),
                Way("auto", {"implementation": "AUTO"}),
            ),
        ),
        Peer(
            "neural-tangents' limits",
            "tangents_limits",
            "neural-tangents",
            (
                Way("whole"),
                Way("whole, no thunks", {}, WITHOUT_THUNKS),
                Way("batches of 4", {"batch": 4}),
                Way("batches of 4, no thunks", {"batch": 4}, WITHOUT_THUNKS),
            ),
        ),
        Peer("torchjd", "autogram", "torchjd", (Way("autogram"),), cross=False),
        Peer(
            "nngeometry",
            "geometry",
            "nngeometry",
            (Way("batches of 16", {"batch": 16}), Way("batches of 64", {"batch": 64})),
            cross=False,
        ),
    )
}
