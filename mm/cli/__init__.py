"""`mm`: one verb a file in this folder, one root yaml of the same name in conf/."""

import ast
import os
import sys
from importlib import import_module
from pathlib import Path


def verbs() -> dict[str, str]:
    """Verb -> the first line of its module's docstring, read without importing it."""
    files = sorted(f for f in Path(__file__).parent.glob("*.py") if not f.name.startswith("_"))
    return {f.stem: (ast.get_docstring(ast.parse(f.read_text())) or "").split("\n")[0] for f in files}


def main() -> None:
    """Entry point of the console script. A user's mistake ends in one message and exit status 2."""
    known = verbs()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        print("mm VERB [KEY=VALUE ...]    VERB --help lists its keys\n")
        print("\n".join(f"  {name:10} {line}" for name, line in known.items()))
        return
    if sys.argv[1] in ("-sc", "--shell-completion"):
        verb = complete(known)
        if verb is None:
            return
        sys.argv.insert(1, verb)
    verb, argv = sys.argv[1], sys.argv[2:]
    if verb not in known:
        from mm.messages import near

        sys.exit(fail(f"no verb '{verb}', there are {', '.join(known)}{near(verb, known)}"))
    if {"-h", "--help"} & set(argv) and not (Path(__file__).parents[1] / f"conf/{verb}.yaml").exists():
        print(ast.get_docstring(ast.parse((Path(__file__).parent / f"{verb}.py").read_text())))
        return
    tracebacks = os.environ.get("HYDRA_FULL_ERROR")  # a user who sets it wants them
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra itself would print and exit with 1
    try:
        import_module(f"mm.cli.{verb}").main(argv)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # of `mm train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        from mm.cli._mistakes import explain
        from mm.cli._processes import Died

        if isinstance(error, Died):  # it brings its own traceback
            sys.exit(f"mm: {error}")
        message = None if tracebacks == "1" else explain(error, verb)
        if message is None:
            raise
        sys.exit(fail(message))
    finally:
        os.environ["HYDRA_FULL_ERROR"] = tracebacks or "0"


def complete(known: dict[str, str]) -> str | None:
    """For `eval "$(mm -sc install=bash)"`: the verb whose keys are to be completed, or None where verbs were.

    Hydra's shell function calls the program without the verb, and completes a line without one.
    """
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if any(arg.startswith("query=") for arg in sys.argv) and len(words) + line.endswith(" ") < 3:
        print(" ".join(name for name in known if name.startswith(words[1] if len(words) > 1 else "")))
        return None
    if len(words) < 2:
        return "train"
    os.environ["COMP_LINE"] = line.replace(f" {words[1]}", "", 1)
    return words[1] if words[1] in known else None


def fail(message: str) -> int:
    """Tell, and give the exit status of a user's mistake."""
    from mm.messages import plain

    print(f"mm: {plain(message, keep=chr(10) + chr(9))}", file=sys.stderr)
    return 2
