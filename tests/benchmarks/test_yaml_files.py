"""Files of settings are refused in one line that names the file, the key and the reason."""

import pytest

from offmarl.benchmarks.yaml_files import FileError, Strict, parse


class Part(Strict):
    size: int = 0
    hidden: list[int] = []


class Whole(Strict):
    title: str
    parts: dict[str, Part] = {}
    one: Part | None = None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tilte: a", "f.yaml: unknown key 'tilte': did you mean 'title'? known: title, parts, one"),
        ("title: a\nparts: {p: {sise: 1}}", "unknown key 'sise' in parts.p: did you mean 'size'?"),
        ("title: a\none: {hiden: [1]}", "unknown key 'hiden' in one: did you mean 'hidden'?"),
        ("parts: {}", "f.yaml: lacks title"),
        ("title: 3", "f.yaml: title: input should be a valid string"),
        ("title: a\none: {hidden: [1, x]}", "f.yaml: one.hidden.1: input should be a valid integer"),
        ("title: a\nparts: {p: {size: true}}", "f.yaml: parts.p.size: input should be a valid integer"),
        ("title: [", "f.yaml, line 1: is not YAML"),
        ("- 1", "f.yaml: write a mapping of names"),
        ("1: x", "f.yaml: write a mapping of names"),
    ],
)
def test_a_fault_is_one_line_with_file_key_and_reason(text, said):
    with pytest.raises(FileError) as refused:
        parse(Whole, "f.yaml", text)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_what_is_right_is_read():
    found = parse(dict[str, Whole], "f.yaml", "x: {title: a, parts: {p: {size: 3}}}")
    assert found["x"].parts["p"].size == 3
