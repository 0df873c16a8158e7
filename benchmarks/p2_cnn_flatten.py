"""P2: NNGP and NTK of an infinite CNN, 3 x (3x3, ReLU), flattened, 200 x 200 images 32 x 32 x 3."""

from limits import case
from side_by_side import Row, Target, start

ROW = Row(
    name="p2_cnn_flatten",
    title="P2: NNGP and NTK of an infinite CNN, 3 x (3x3, ReLU), flattened, 200 x 200 images 32 x 32 x 3",
    cases=(case("cnn", "3 x (3x3, ReLU), flatten", (3, 32, 32), 200),),
    quick=(case("cnn", "3 x (3x3, ReLU), flatten", (3, 6, 6), 8),),
    peers=("neural-tangents' limits",),
    targets=(Target(ratio=8, peer="neural-tangents' limits"),),
    quoted=(),
)

if __name__ == "__main__":
    start(ROW)
