"""Run the contract tests on an encoder, fusion or head of your own.

mm check my_pkg.MyEncoder [argument=value ...] [target_codec=CLASS]: from the folder that holds my_pkg. Arguments are
those of the class; embed_dim, classes and others that follow from the data need not be given. target_codec is the class
that reads the cells of a head's target, such as mm.targets.regression.RegressionTarget. One line per check is printed;
the exit status is 1 if one has failed. mm check data lists the cells of a data set that can't be read.
"""

from typing import Any

from mm.assembly.find_class import find_class
from mm.cli._import_path import add_working_directory
from mm.contracts import check_part

USAGE = "usage: mm check my_pkg.MyEncoder [argument=value ...], from the folder that holds my_pkg"


def main(argv: list[str]) -> None:
    """Print one line per check. Errors: ValueError for what can't be built; SystemExit(1) where a check failed."""
    if not argv or argv[0].startswith("-") or "=" in argv[0]:
        raise ValueError(USAGE)
    add_working_directory()
    report = check_part(find_class(argv[0], USAGE, module=True), **parse_arguments(argv[1:]))
    for name, message in report.results:
        print(f"ok      {name}" if message is None else f"FAILED  {name}: {message}")
    if not report.passed:
        raise SystemExit(1)


def parse_arguments(words: list[str]) -> dict[str, Any]:
    """Parse key=value, where the value is YAML; `target_codec` is that of a head's target.

    The codec is a class, or {_target_: class, argument: value}.
    """
    from omegaconf import OmegaConf

    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise ValueError(f"got '{wrong[0]}', wanted argument=value; {USAGE}")
    given: Any = OmegaConf.to_container(OmegaConf.from_dotlist(words))
    if "reads" in given:
        raise ValueError("reads is now target_codec")
    chosen = given.pop("target_codec", None)
    if chosen is None:
        return {"arguments": given}
    node = {"_target_": chosen} if isinstance(chosen, str) else dict(chosen)
    codec = find_class(str(node.pop("_target_", "")), USAGE)(**node)
    return {"arguments": given, "codec": codec}
