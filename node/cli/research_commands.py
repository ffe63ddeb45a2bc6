"""Commands of the research side: train lists what is planned; evaluate measures what this version has."""

from typing import Annotated

import typer

from node.cli import evaluate_commands
from node.cli.output import print_text, refuse

NOT_YET_TRAIN = {
    "quality": "two-stage training of the learned quality model",
    "encoder": "masked pre-training of the 3-D foundation encoder",
    "gland": "gland and zone segmenter",
    "detector": "lesion detector on the encoder",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    evaluate_commands.register(app)


def train(recipe: Annotated[str | None, typer.Argument(help="name of the recipe")] = None) -> None:
    """Train a model of the node. This version ships training-free algorithms only; the recipes are listed."""
    if recipe is None:
        print_text("No recipe in this version. Planned:")
        for name, what in NOT_YET_TRAIN.items():
            print_text(f"  {name}: {what}")
        return
    if recipe in NOT_YET_TRAIN:
        refuse(f"recipe {recipe!r} is not in this version yet ({NOT_YET_TRAIN[recipe]})")
    refuse(f"unknown recipe {recipe!r}; planned: {', '.join(NOT_YET_TRAIN)}")
