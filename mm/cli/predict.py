"""Write a prediction for each row of new data."""

from mm.cli._render import print_test
from mm.cli._verb import run_verb


def main(argv: list[str]) -> None:
    run_verb("predict", argv, "mm.assembly.model_data:predict_config", print_test)
