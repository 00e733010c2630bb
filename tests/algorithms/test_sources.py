"""`algorithms/SOURCES.md`, the table of settings and their sources, against the classes."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from offmarl.algorithms import registry
from offmarl.algorithms.parts.config import BaseConfig

TABLE = Path(__file__).parents[2] / "algorithms" / "SOURCES.md"
COLUMNS = ["setting", "ours", "variants", "paper", "code", "where"]
SHARED = {field.name: field.default for field in dataclasses.fields(BaseConfig)}


def value(text):
    """The value that is the whole cell, in code style; None for text and empty cells."""
    found = re.fullmatch(r"`([^`]*)`", text)
    return found and {"is": plain(yaml.safe_load(found[1]))}


def plain(given):
    return list(given) if isinstance(given, tuple) else given


def rows():
    """The rows by method and, after a colon, action space where a heading names one."""
    found, name = {}, ""
    for line in TABLE.read_text().splitlines():
        if heading := re.fullmatch(r"## `([\w:]+)`", line):
            name = heading[1]
            found[name] = []
        elif name and line.startswith("| ") and not line.startswith("| setting"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == len(COLUMNS), line
            found[name].append(dict(zip(COLUMNS, cells)))
    return found


def changed(cls, setting, space):
    """What the variants of a method have for a setting, by name."""
    settings = {name: cls.variant(name, space) for name in cls.variant_names()}
    return {name: {"is": plain(own[setting])} for name, own in settings.items() if setting in own}


@pytest.mark.parametrize("cls", registry().values(), ids=lambda cls: cls.name)
def test_the_table_of_sources_has_every_setting_and_its_values(cls):
    tables = {name: table for name, table in rows().items() if name.partition(":")[0] == cls.name}
    by_space = any(":" in name for name in cls.variants)
    assert tables.keys() == ({f"{cls.name}:{space}" for space in cls.actions} if by_space else {cls.name})
    fields = {field.name: field.default for field in dataclasses.fields(cls.Config)}
    code = next((v for v in ("released", "om2p") if v in cls.variant_names()), "paper")
    for name, table in tables.items():
        space = name.partition(":")[2] or sorted(cls.actions)[0]
        own = [s for s in fields if s not in SHARED or fields[s] != SHARED[s] or changed(cls, s, space)]
        assert [row["setting"] for row in table] == own, name
        for row in table:
            setting, where = row["setting"], f"{name}.{row['setting']}"
            default, variants = {"is": plain(fields[setting])}, changed(cls, setting, space)
            assert value(row["ours"]) == default, where
            written = re.findall(r"(\w+) (`[^`]*`)", row["variants"])
            assert {variant: value(text) for variant, text in written} == variants, where
            assert value(row["paper"]) in (None, default), f"{where}: not the paper's"
            assert value(row["code"]) in (None, variants.get(code, default)), f"{where}: not the code's"
            assert not (row["code"] or row["paper"]) or row["where"] or setting == "decay_steps", f"{where}: no source"


def test_methods_of_one_action_space_may_have_a_table_of_their_own():
    """Every heading is a method of the registry, alone or with an action space."""
    for name in rows():
        method, _, space = name.partition(":")
        assert method in registry() and (not space or space in registry()[method].actions), name
