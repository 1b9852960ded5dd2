"""`mm`: one verb a file in this folder, one root yaml of the same name in conf/."""

import ast
import atexit
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

from mm.cli._logging import print_log
from mm.output import lasting_output
from mm.signals import Stopped, Stopper, stopping, tell
from mm.streams import leave_ascii, settle


def verbs() -> dict[str, str]:
    """Verb -> the first line of its module's docstring, read without importing it."""
    files = sorted(f for f in Path(__file__).parent.glob("*.py") if not f.name.startswith("_"))
    return {f.stem: (ast.get_docstring(ast.parse(f.read_text(encoding="utf-8"))) or "").split("\n")[0] for f in files}


def main() -> None:
    """Entry point of the console script.

    A user's mistake ends in one message and exit status 2, a signal in one message and the status of a process that the
    signal ended. A verb goes on when nobody reads its output any more.
    """
    leave_ascii()
    settle()
    training = sys.argv[1:2] == ["train"] and not {"-m", "--multirun"} & set(sys.argv)
    note = "mm: nobody reads the standard output any more; the run goes on without it" if training else ""
    with lasting_output(note), print_log(), stopping() as stopper:
        try:
            command(stopper)
        except Stopped as end:
            leave(end, training)
        except Exception:
            if not stopper.signum:
                raise
            leave(Stopped(stopper.signum), training)  # what the signal has interrupted has made another error of it
        finally:
            atexit.unregister(end_quietly)
            atexit.register(end_quietly)


def leave(end: Stopped, training: bool) -> None:
    """Exit after a signal. What a run has kept is told by the run itself, once it has begun."""
    if not end.reported and not os.environ.get("MM_REPORTS"):  # which a process has that was started by the first one
        tell(f"mm: stopped by {end.signal}{' before training began; nothing is kept' if training else ''}")
    sys.exit(end.code)


def end_quietly() -> None:
    """All is done: Ctrl-C while the interpreter ends is no reason for a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(stopper: Stopper) -> None:
    """Run the verb that was typed."""
    known = verbs()
    if sys.argv[1:2] == ["help"] and len(sys.argv) > 2:  # mm help VERB is mm VERB --help
        sys.argv = [sys.argv[0], *sys.argv[2:], "--help"]
    if sys.argv[1:3] == ["check", "data"]:
        sys.argv[1:3] = ["check_data"]
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        print("mm VERB [KEY=VALUE ...]    mm VERB --help lists its keys    mm --version\n")
        print("\n".join(f"  {name:{max(map(len, known))}}  {line}" for name, line in known.items()))
        return
    if sys.argv[1] in ("-V", "--version", "version"):
        print(versions())
        return
    if sys.argv[1] in ("-sc", "--shell-completion"):
        verb = complete(known)
        if verb is None:
            return
        sys.argv.insert(1, verb)
    verb, argv = sys.argv[1], sys.argv[2:]
    if verb not in known:
        from mm.messages import near
        from mm.renames import VERBS

        if verb in VERBS:
            sys.exit(fail(f"mm {verb} is now mm {VERBS[verb]}"))
        sys.exit(fail(f"no verb '{verb}', there are {', '.join(known)}{near(verb, known)}"))
    tracebacks = os.environ.get("HYDRA_FULL_ERROR")  # a user who sets it wants them
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra itself would print and exit with 1
    try:
        if {"-h", "--help"} & set(argv):
            from mm.cli._help import help_text

            print(help_text(verb, argv))
            return
        import_module(f"mm.cli.{verb}").main(argv)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if stopper.signum:
            raise
        from mm.cli._mistakes import explain
        from mm.launch.processes import WorkerDiedError

        if isinstance(error, WorkerDiedError):  # it brings its own traceback
            print(f"mm: {error}", file=sys.stderr)
            sys.exit(error.status)
        message = None if tracebacks == "1" else explain(error, verb)
        if message is None:
            raise
        sys.exit(fail(message))
    finally:
        os.environ["HYDRA_FULL_ERROR"] = tracebacks or "0"


def versions() -> str:
    """The versions of mm and of what it stands on, which a report of a fault should name."""
    import platform
    from importlib.metadata import version

    import mm

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "transformers"))
    return f"mm {mm.__version__} ({packages}, Python {platform.python_version()})"


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
