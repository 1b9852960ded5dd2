"""The options that the config of a verb is composed of, with their keys, for `--help`. torch is not imported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mm.assembly.config_keys import CONF, Key, read_keys, read_summary, read_title, read_yaml
from mm.assembly.signatures import with_defaults

Groups = dict[str, tuple[str | None, list[str]]]  # group -> the chosen option, all options


class Section(NamedTuple):
    """A chosen option and its keys.

    Attributes:
        option: The override that chooses the option, such as `model/fusion=gated`.
        title: Description of the option.
        keys: Full dotted name to key.
    """

    option: str
    title: str
    keys: dict[str, Key]


def compose_sections(
    verb: str, overrides: Sequence[str], folders: Sequence[Path]
) -> tuple[dict[str, Any], list[Any], Groups]:
    """Compose the config of a verb, and return its defaults list and its config groups as well.

    Args:
        verb: Name of the root config.
        overrides: Hydra overrides.
        folders: Further config folders.

    Returns:
        The config as plain data, the entries of the final defaults list, and each config group with its chosen option
        and all of its options.

    Raises:
        HydraException: If an option or a key does not exist.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from mm.assembly.registry import open_registry

    paths = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []
    with open_registry():
        loader = GlobalHydra.instance().config_loader()
        found = loader.compute_defaults_list(verb, [*overrides, *paths], RunMode.RUN)
        defaults = [entry for entry in found.defaults if is_shown(entry.config_path or "hydra")]
        chosen = {group.split("@")[0]: option for group, option in found.overrides.known_choices.items()}
        shown = {group: option for group, option in chosen.items() if is_shown(f"{group}/{option}")}
        groups = {group: (shown[group], loader.get_group_options(group)) for group in sorted(shown)}
        if any(o.key_or_group != "hydra.searchpath" for o in found.config_overrides):  # Hydra checks them, slowly
            cfg = loader.load_configuration(verb, [*overrides, *paths], RunMode.RUN)
            return OmegaConf.to_container(cfg, resolve=False), defaults, groups  # type: ignore[return-value]
    return with_defaults(merge_files(defaults, [CONF, *folders])), defaults, groups


def is_shown(config: str) -> bool:
    """Return whether help shows a config: any that is not Hydra's, and the launchers `slurm` and `local_pool`."""
    return not config.startswith("hydra") or config in ("hydra/launcher/slurm", "hydra/launcher/local_pool")


def merge_files(defaults: Sequence[Any], roots: Sequence[Path]) -> dict[str, Any]:
    """Merge the files of a defaults list as Hydra does: later files take precedence."""
    cfg: dict[str, Any] = {}
    for entry in defaults:
        node = cfg
        for part in entry.package.split(".") if entry.package else ():
            node = node.setdefault(part, {})
        content = read_yaml(file_of(entry.config_path, roots))
        merge_into(node, {key: value for key, value in content.items() if key != "defaults"})
    return cfg


def merge_into(node: dict[str, Any], content: Mapping[str, Any]) -> None:
    """Merge a mapping into another one in place. Nested mappings are merged, all other values are replaced."""
    for key, value in content.items():
        if isinstance(value, dict) and isinstance(node.get(key), dict):
            merge_into(node[key], value)
        else:
            node[key] = value


def list_sections(verb: str, defaults: Sequence[Any], roots: Sequence[Path]) -> list[Section]:
    """Return the chosen options in the order of the defaults list, after a section with the keys of the verb itself."""
    parents = {entry.config_path: entry for entry in defaults}
    found: dict[str, Section] = {verb: Section(f"Keys of mm {verb}", "", {})}
    for entry in defaults:
        owner = owner_of(entry, parents, verb)
        name = owner.config_path if (CONF / f"{owner.config_path}.yaml").parent != CONF else verb
        group, _, option = name.rpartition("/")
        file = file_of(name, roots)
        section = found.setdefault(name, Section(f"{group}={option}", read_title(file) or read_summary(file), {}))
        prefix = f"{entry.package}." if entry.package else ""
        for key in read_keys(file_of(entry.config_path, roots)):
            full = f"{prefix}{key.name}"
            known = section.keys.get(full)
            section.keys[full] = key._replace(description=key.description or (known.description if known else ""))
    return list(found.values())


def owner_of(entry: Any, parents: Mapping[str, Any], verb: str) -> Any:
    """Return the option that an entry of a defaults list belongs to: itself, or the entry that includes it."""
    while entry.override_key is None and entry.parent not in (verb, "<root>", None) and entry.parent in parents:
        parent = parents[entry.parent]
        if parent is entry:
            break
        entry = parent
    return entry


def file_of(name: str, roots: Sequence[Path]) -> Path:
    """Return the path of a config file; later config folders take precedence."""
    files = [root / f"{name}.yaml" for root in reversed(roots)]
    return next((file for file in files if file.exists()), files[-1])
