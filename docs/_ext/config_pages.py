"""Reference pages of the verbs and of the config groups, from the comments in conf/ and the classes they build."""

from pathlib import Path

from markdown import code, escape, table

from mm.assembly.config_keys import CONF, Key, read_keys, read_summary, read_title
from mm.cli import verbs

# Folders that make a page each, with what the page is called.
GROUPS = {
    "datamodule": "Data modules",
    "datamodule/transforms": "Transforms",
    "model": "Model",
    "model/encoders": "Encoders",
    "model/fusion": "Fusion",
    "model/heads": "Heads",
    "task": "Tasks",
    "task/loss": "Contrastive losses",
    "task/objectives": "Pre-training objectives",
    "task/optimizer": "Optimizers",
    "task/scheduler": "Learning-rate schedules",
    "peft": "Parameter-efficient fine-tuning",
    "callbacks": "Callbacks",
    "logger": "Loggers",
    "trainer": "Trainer",
    "prompts": "Prompts",
    "robustness": "Robustness",
    "paths": "Paths",
    "hydra/launcher": "Launchers",
    "debug": "Debugging",
    "experiment": "Experiments",
}


def pages() -> dict[str, str]:
    """Return the pages of all verbs and groups."""
    made = {f"reference/verbs/{name}.md": verb_page(name, title) for name, title in verbs().items()}
    for group, title in GROUPS.items():
        if (CONF / group).is_dir():
            made[f"reference/config/{page_name(group)}.md"] = group_page(group, title)
    return made


def page_name(group: str) -> str:
    """Return the name of a group's page."""
    return group.replace("/", "-").replace("_", "-")


def verb_page(verb: str, title: str) -> str:
    """Return the page of one verb: its sentence and the keys of its root yaml, or its own help text."""
    import ast

    file = CONF / f"{verb}.yaml"
    lines = [f"# `mm {verb}`", escape(title)]
    if not file.exists():
        source = (CONF.parent / f"cli/{verb}.py").read_text(encoding="utf-8")
        text = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[2].strip()
        if text:
            lines.append(f"```text\n{text}\n```")
        return "\n\n".join(lines) + "\n"
    lines.append(f"`mm {verb} --help` prints the keys of the parts that are chosen.")
    parts = included(file)
    if parts:
        lines.append("Its config is composed of: " + ", ".join(parts) + ".")
    lines.append(key_table(read_keys(file), ""))
    return "\n\n".join(lines) + "\n"


def included(file: Path) -> list[str]:
    """Return links to the groups in a root yaml's defaults list."""
    import yaml

    links = []
    for entry in yaml.safe_load(file.read_text(encoding="utf-8")).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_" and (CONF / f"{entry}.yaml").exists():
            links.append(f"[`mm {entry}`]({entry}.md)")
        for group in entry if isinstance(entry, dict) else ():
            if group in GROUPS:
                links.append(f"[`{group}={entry[group] or 'null'}`](../config/{page_name(group)}.md)")
    return links


def group_page(group: str, title: str) -> str:
    """Return the page of one group: every option with its keys."""
    lines = [f"# {title}: `{group}`"]
    folder = CONF / group
    inner = [g for g in GROUPS if g != group and g.startswith(f"{group}/")]
    deep = group in ("datamodule/transforms", "model/encoders")  # their folders are of a modality each
    files = sorted(folder.glob("*/*.yaml" if deep else "*.yaml"))
    lines.append(f"Choose an option with `{example(group, files)}`.")
    if inner:
        lines.append("See also " + ", ".join(f"[`{g}`]({page_name(g)}.md)" for g in inner) + ".")
    for file in files:
        option = file.relative_to(CONF).with_suffix("")
        shared = option.name == "base"
        lines.append(f"## Shared by all: `{option}`" if shared else f"## `{option.parent}={option.name}`")
        if note := read_title(file) or read_summary(file):
            lines.append(verbatim(note) if group == "experiment" else escape(" ".join(note.split())))
        if group != "experiment" and (keys := read_keys(file)):
            lines.append(key_table(keys, package_of(file)))
    return "\n\n".join(lines) + "\n"


def example(group: str, files: list[Path]) -> str:
    """Return how an option of a group is typed."""
    usable = [file for file in files if file.stem not in ("base", "sources")]
    option = usable[0].relative_to(CONF).with_suffix("") if usable else Path(group, "NAME")
    if group in ("callbacks", "logger"):
        return f"{group}=[{','.join(f.stem for f in usable[:2])}]"
    return f"{option.parent}={option.name}"


def verbatim(note: str) -> str:
    """Return an experiment's comment as it stands."""
    return f"```text\n{note}\n```"


def package_of(file: Path) -> str:
    """Return the dotted prefix of a file's keys, as its package comment or its folder has it."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package "):
            package = line.split()[2]
            return "" if package == "_global_" else f"{package}."
    parts = file.relative_to(CONF).parent.parts
    if parts[:2] in (("model", "encoders"), ("datamodule", "transforms")):
        return ".".join(parts) + "."
    return ".".join(parts) + "." if parts else ""


def key_table(keys: list[Key], prefix: str) -> str:
    """Return a table of keys."""
    rows = [(code(prefix + k.name), code(k.type), code(k.default), escape(capital(k.description))) for k in keys]
    return table(("key", "type", "default", "description"), rows)


def capital(text: str) -> str:
    """Return a text with a capital first letter, but where it begins with a key."""
    word = text.split(" ")[0] if text else ""
    return text[:1].upper() + text[1:] if word.isalpha() else text
