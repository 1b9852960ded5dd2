"""Hydra composes a config once for all tests that ask for the same options, and parses an override once.

A command composes its config three times (for its mode, for its job, for the types of its values), about 0.3 s each
time, and most tests of commands choose the same options. What is stored is what Hydra made of files that no test
changes; a test gets a copy, to which Hydra applies the test's values as ever.
"""

import copy
import pickle
from typing import Any

import pytest
from hydra._internal import config_loader_impl as loader
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.defaults_list import DefaultsList
from hydra.core.override_parser.overrides_parser import OverridesParser


def sources_of(repo: Any) -> tuple[tuple[str, str], ...] | None:
    """Where a repository reads configs; None where a folder of a test's own is among them, which may change."""
    sources = tuple((source.provider, source.path) for source in repo.get_sources())
    return None if any(source.scheme() == "file" for source in repo.get_sources()) else sources


def memoize_composition(patch: pytest.MonkeyPatch) -> None:
    """Let Hydra store defaults lists, composed configs without their overrides, and parsed overrides."""
    create, compose = loader.create_defaults_list, loader.ConfigLoaderImpl._compose_config_from_defaults_list
    parse, read = OverridesParser.parse_rule, ImportlibResourcesConfigSource._read_config
    lists: dict[Any, DefaultsList] = {}
    configs: dict[Any, bytes] = {}
    parsed: dict[tuple[str, str], Any] = {}
    files: dict[str, bytes] = {}

    def create_defaults_list(*, repo: Any, config_name: str, overrides_list: list, **options: bool) -> DefaultsList:
        sources = sources_of(repo)
        asked = {"repo": repo, "config_name": config_name, "overrides_list": overrides_list, **options}
        if sources is None or any(override.is_sweep_override() for override in overrides_list):
            return create(**asked)
        values = [o for o in overrides_list if isinstance(o.value(), dict) or not repo.group_exists(o.key_or_group)]
        groups = tuple(o.input_line for o in overrides_list if o not in values)
        key = (sources, config_name, groups, options["prepend_hydra"])
        if key not in lists:
            try:
                lists[key] = create(**asked | {"skip_missing": False})  # the same as with True where nothing is missing
            except Exception:
                return create(**asked)
        found = lists[key]
        return DefaultsList(found.defaults, found.defaults_tree, values, found.overrides)

    def compose_config(self: Any, defaults: list, repo: Any) -> Any:
        sources = sources_of(repo)
        if sources is None:
            return compose(self, defaults, repo)
        key = (sources, repr(defaults))
        if key not in configs:
            configs[key] = pickle.dumps(compose(self, defaults, repo))
        return pickle.loads(configs[key])  # in a third of the time of a deep copy

    def parse_rule(self: Any, s: str, rule_name: str) -> Any:
        if (s, rule_name) not in parsed:
            parsed[s, rule_name] = parse(self, s, rule_name)
        return copy.deepcopy(parsed[s, rule_name])

    def read_config(self: Any, res: Any) -> Any:
        if str(res) not in files:
            files[str(res)] = pickle.dumps(read(self, res))
        return pickle.loads(files[str(res)])

    patch.setattr(ImportlibResourcesConfigSource, "_read_config", read_config)
    patch.setattr(loader, "create_defaults_list", create_defaults_list)
    patch.setattr(loader.ConfigLoaderImpl, "_compose_config_from_defaults_list", compose_config)
    patch.setattr(OverridesParser, "parse_rule", parse_rule)
