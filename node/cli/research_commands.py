"""Commands of the research side: train and evaluate. They list what this version has and what it does not have yet."""

from typing import Annotated

import typer

from node.cli.output import print_text, refuse

NOT_YET_TRAIN = {
    "quality": "two-stage training of the learned quality model",
    "encoder": "masked pre-training of the 3-D foundation encoder",
    "gland": "gland and zone segmenter",
    "detector": "lesion detector on the encoder",
}
NOT_YET_EVALUATE = {
    "quality": "hard splits of the quality model by vendor, patient and artefact family",
    "detection": "AUROC, AP, FROC and calibration of the detector",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command()(evaluate)


def train(recipe: Annotated[str | None, typer.Argument(help="name of the recipe")] = None) -> None:
    """Train a model of the node. This version ships training-free algorithms only; the recipes are listed."""
    _list_or_refuse("recipe", recipe, NOT_YET_TRAIN)


def evaluate(study: Annotated[str | None, typer.Argument(help="name of the evaluation")] = None) -> None:
    """Evaluate a model of the node. The evaluations are listed."""
    _list_or_refuse("evaluation", study, NOT_YET_EVALUATE)


def _list_or_refuse(noun: str, name: str | None, planned: dict[str, str]) -> None:
    if name is None:
        print_text(f"No {noun} in this version. Planned:")
        for planned_name, what in planned.items():
            print_text(f"  {planned_name}: {what}")
        return
    if name in planned:
        refuse(f"{noun} {name!r} is not in this version yet ({planned[name]})")
    refuse(f"unknown {noun} {name!r}; planned: {', '.join(planned)}")
