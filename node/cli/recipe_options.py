"""Options that training and evaluation of the learned quality model share, and the recipe they make."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ai.training.quality_recipe import Recipe

STEPS = 1000
"""Of ``ai.training.quality_network.Schedule``, which is not imported for a help text."""

DataOption = Annotated[
    list[Path],
    typer.Option(
        "--data", help="DICOM folder with good prostate MR; repeat for several", exists=True, show_default=False
    ),
]
WorkOption = Annotated[
    Path,
    typer.Option(
        "--work",
        help="folder for what is kept between runs: a few gigabytes, with patient IDs in it",
        file_okay=False,
        show_default=False,
    ),
]
SimulatedOption = Annotated[int, typer.Option("--simulated", min=0, max=1000, help="simulated patients besides")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="of the trainings; the cases are always the same")]
StepsOption = Annotated[int, typer.Option("--steps", min=2, help="training steps of the network in all")]
ProcessesOption = Annotated[int, typer.Option("--processes", min=1, max=256, help="processes beside each other")]


def recipe_of(data: list[Path], simulated: int, seed: int, steps: int) -> "Recipe":
    """The recipe that the options ask for."""
    from ai.training.quality_data import DataPlan
    from ai.training.quality_network import Schedule
    from ai.training.quality_recipe import Recipe

    return Recipe(DataPlan(tuple(data), simulated), Schedule.lasting(steps), seed)
