"""`priorscope similar`: which inputs are alike for a network, by its tangent kernel and by its features."""

import argparse
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from .. import data
from ..data.collection import Collection
from ..data.inputs import Inputs
from ..data.pictures import photographs, read_pictures
from ..data.sentences import descriptions, read_sentences
from ..errors import DataError, ModelError
from ..network.pretrained import PRETRAINED, pretrained
from ..network.readouts import MEANINGS
from ..network.specs import model_maker
from ..report.similarity_page import similarity_page
from . import law

POINTS = 64
MEMORY = 3.0


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "similar",
        help="which inputs are alike for a network, by its tangent kernel and by its features",
        description=f"{__doc__} Without inputs it takes real ones that packages bring.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--model",
        default="efficientnet-lite0",
        help=f"{', '.join(PRETRAINED)}; or, with --data, mlp:DEPTHxWIDTH:ACTIVATION or file.py:function",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--images", nargs="+", metavar="PATH", help="pictures, or folders of pictures (the groups)")
    source.add_argument("--sentences", nargs="+", metavar="FILE", help="text files, one sentence a line")
    source.add_argument("--data", help=f"{', '.join(sorted(data.NAMES))}; or a .csv or .npz file")
    add("--target", help="the CSV's column that says the group")
    add("--task", choices=["regression", "classification"], help="what the target is, where its type does not say")
    add("--points", type=int, default=POINTS, help="the most inputs that are taken")
    add(
        "--readout",
        choices=list(MEANINGS),
        help="the scalar whose gradients are compared (default: projection for pre-trained networks, "
        "trace, the mean over all outputs, for your own)",
    )
    add("--queries", type=int, default=6, help="inputs shown with their neighbours")
    add("--memory", type=float, default=MEMORY, help="GB that the kernel may take")
    law.add_arguments(parser)
    add("--seed", type=int, default=0, help="of the chosen points, the weights and the read-out's direction")
    add("--out", default="similar", help="the folder to write")
    add("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Asked:
    """What the arguments name: a network, inputs as people and as the network see them, and the defaults for both."""

    description: str
    model: nn.Module
    collection: Collection
    x: Inputs
    readout: str
    features: Literal["output", "penultimate"]


def run(arguments: argparse.Namespace) -> int:
    if not arguments.memory > 0:
        raise DataError("--memory", f"is {arguments.memory}", "Give a positive number of GB")
    own = ":" in arguments.model  # mlp:3x512, file.py:function
    asked = _own(arguments) if own else _pretrained(arguments)
    result = similarity_page(
        asked.model,
        asked.collection,
        asked.x,
        readout=arguments.readout or asked.readout,
        features=asked.features,
        out=arguments.out,
        queries=arguments.queries,
        memory=int(arguments.memory * 1e9),
        description=asked.description,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )
    print("\n".join(result.sentences))
    print(f"\nThe page: {result.page}")
    return 0


def _pretrained(arguments: argparse.Namespace) -> Asked:
    if arguments.model not in PRETRAINED:
        remedy = f"Choose one of {', '.join(PRETRAINED)}, or name your own: mlp:3x512 or file.py:function"
        raise ModelError(f"the model {arguments.model!r}", "is not known", remedy)
    for name in ("data", "target", "task"):
        if getattr(arguments, name) is not None:
            cause = f"has no meaning for {arguments.model}"
            raise DataError(f"--{name}", cause, "Give --images or --sentences, or nothing for built-in ones")
    network = pretrained(arguments.model)
    if network.reads == "pictures":
        if arguments.sentences is not None:
            raise DataError("--sentences", f"cannot be read by {network.name}", "Use --model minilm, or give --images")
        collection = photographs() if arguments.images is None else read_pictures(arguments.images)
    else:
        if arguments.images is not None:
            remedy = "Use --model efficientnet-lite0, or give --sentences"
            raise DataError("--images", f"cannot be read by {network.name}", remedy)
        collection = descriptions() if arguments.sentences is None else read_sentences(arguments.sentences)
    collection = collection.at_most(arguments.points)
    x = network.prepare(collection.items)
    return Asked(network.description, network.module, collection, x, network.readout, network.features)


def _own(arguments: argparse.Namespace) -> Asked:
    maker = model_maker(arguments.model)
    for name in ("images", "sentences"):
        if getattr(arguments, name) is not None:
            remedy = f"Give --data, or one of --model {', '.join(PRETRAINED)}"
            raise DataError(f"--{name}", f"has no meaning for the model {maker.source}", remedy)
    if arguments.data is None:
        raise DataError(f"--model {maker.source}", "has no inputs", "Name them with --data")
    dataset = data.load(arguments.data, arguments.target, arguments.task)
    if arguments.points < 2:
        raise DataError("--points", f"is {arguments.points}", "Ask for at least 2")
    split = data.split(dataset, min(arguments.points, len(dataset.x) - 1), 1, arguments.seed)
    # By class, so that the picture of all similarities has the classes in their order.
    order = torch.arange(len(split.y)) if dataset.classes is None else split.y.argsort(stable=True)
    labels, names = split.y[order].tolist(), dataset.class_names
    groups = None if dataset.classes is None else tuple(str(y) if names is None else names[y] for y in labels)
    collection = Collection(
        dataset.name,
        "points",
        split.raw[order],
        tuple(f"#{i}" if groups is None else f"#{i}: {groups[i]}" for i in range(len(labels))),
        groups,
        (f"{len(labels)} of {len(dataset.x):,} points, drawn by the seed", *split.notes),
    )
    init = law.initialization(arguments, maker)
    model = law.draw(maker, init, tuple(split.x.shape[1:]), dataset.classes or 1, arguments.seed)
    return Asked(maker.source, model.eval(), collection, split.x[order], "trace", "penultimate")
