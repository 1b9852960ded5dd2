"""Evaluate a model directory on data, for every subset of its inputs."""

from mm.cli._render import print_test
from mm.cli._verb import run_verb


def main(argv: list[str]) -> None:
    run_verb("evaluate", argv, "mm.assembly.evaluation:evaluate_config", print_test)
