"""P1: NNGP and NTK of an infinite network, 3 hidden layers of ReLU, Gram matrix of 4000 points, d = 784."""

from limits import case
from side_by_side import Row, Target, start

ROW = Row(
    name="p1_fc",
    title="P1: NNGP and NTK of an infinite network, 3 hidden layers of ReLU, Gram matrix of 4000 points, d = 784",
    cases=(case("fc", "3 hidden layers", (784,), 4000),),
    quick=(case("fc", "3 hidden layers", (12,), 16),),
    peers=("neural-tangents' limits",),
    targets=(Target(ratio=4, peer="neural-tangents' limits"), Target(gigabytes=0.4)),
    quoted=(),
)

if __name__ == "__main__":
    start(ROW)
