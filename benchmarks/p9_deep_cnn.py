"""P9: an infinite CNN of 21 layers with global pooling, 32 x 32 x 3: seconds for 4 against 4 images."""

from limits import case
from side_by_side import Row, start

ROW = Row(
    name="p9_deep_cnn",
    title="P9: an infinite CNN of 21 layers with global pooling, 32 x 32 x 3: seconds for 4 against 4 images",
    cases=(case("deep", "21 layers", (3, 32, 32), 4, cross=True),),
    quick=(case("deep", "21 layers", (3, 6, 6), 4, cross=True),),
    peers=("neural-tangents' limits",),
    targets=(),
    quoted=(
        "published for neural-tangents, milliseconds an entry: 112.9 on a CPU of more than 56 cores, 2.70 on a V100",
    ),
)

if __name__ == "__main__":
    start(ROW)
