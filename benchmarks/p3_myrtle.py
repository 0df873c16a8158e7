"""P3: NNGP and NTK of the infinite Myrtle-5 with average pooling, 8 against 8 other images 32 x 32 x 3."""

from limits import case
from side_by_side import Row, Target, start

ROW = Row(
    name="p3_myrtle",
    title="P3: NNGP and NTK of the infinite Myrtle-5 with average pooling, 8 against 8 other images 32 x 32 x 3",
    cases=(
        case("myrtle5", "Myrtle-5", (3, 32, 32), 8, cross=True),
        case("myrtle5", "Myrtle-5", (3, 32, 32), 8, "float64", cross=True),
    ),
    quick=(case("myrtle5", "Myrtle-5", (3, 8, 8), 4, cross=True),),
    peers=("neural-tangents' limits",),
    targets=(Target(ratio=4, peer="neural-tangents' limits"),),
    quoted=(),
)

if __name__ == "__main__":
    start(ROW)
