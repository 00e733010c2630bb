"""What the documents say of the repository is true: their maps, the paths that they name and the commands they show."""

import re
import shlex
from pathlib import Path

import pytest

from offmarl.experiments.cli import COMMANDS, parser

ROOT = Path(__file__).parents[1]
FOLDERS = ("algorithms", "benchmarks", "datasets", "experiments", "reports")
READMES = [
    "README.md",
    *(f"{folder}/README.md" for folder in (*FOLDERS, "datasets/imported", "datasets/measures", "tests")),
]
DOCUMENTS = [*READMES, "CONTRIBUTING.md", "SECURITY.md", "reports/RESULTS.md"]
LONGEST = 150  # lines of a README
EXAMPLES = {"my_method.py", "noisy_bc.py"}  # files that a reader writes
ENDINGS = {".py", ".sh", ".yaml", ".yml", ".toml", ".lock", ".cff", ".md"}
TOP = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"results"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def text_of(document):
    return (ROOT / document).read_text(encoding="utf-8")


def inline_code(document):
    """What stands between backticks in the running text."""
    return re.findall(r"(?<!\\)`([^`\n]+)`", FENCE.sub("", text_of(document)))


def is_path(words):
    """Whether code in a text looks like a path of the repository."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", words) or Path(words).name in EXAMPLES:
        return False
    return "/" in words and words.split("/")[0] in TOP or Path(words).suffix in ENDINGS


def exists(words, document):
    """Whether a path is there: from the root, beside the document, or for a bare name anywhere."""
    if any((place / words).exists() for place in (ROOT, (ROOT / document).parent)):
        return True
    return "/" not in words and any(any((ROOT / folder).rglob(words)) for folder in (*FOLDERS, "tests"))


def command_lines(document):
    """The commands of offmarl in the code blocks of a document, as words for its parser."""
    for _, block in FENCE.findall(text_of(document)):
        for line in block.splitlines():
            found = re.match(r"(?:\w+=\S+ )*(offmarl|\./run_all\.sh) (.*)", line)
            if found:
                words = shlex.split(found[2], comments=True)
                yield (
                    ["run", *words] if found[1] != "offmarl" and words[0] != "--test" and words[0][0] == "-" else words
                )


def mapped(document):
    """The paths of the map that a README opens with, each with what it says; folders end in a slash."""
    lines = text_of(document).splitlines()
    assert lines[0].startswith("# ") and lines[1:3] == ["", "```"], "opens with its map"
    found, folder = {}, ""
    for line in lines[3 : lines.index("```", 3)]:
        indent, name, text = re.fullmatch(r"( *)(\S+)\s*(.*)", line).groups()
        folder = folder if indent else ""
        found[folder + name] = text
        folder = name if name.endswith("/") and not indent else folder
    return found


def tree(folder, recursive=True):
    """Every module of a folder and every sub-folder that has files, as a map names them."""
    paths = [path for path in folder.rglob("*") if "__pycache__" not in path.parts and path.name != "__init__.py"]
    modules = {str(path.relative_to(folder)) for path in paths if path.suffix == ".py"}
    folders = {f"{path.parent.relative_to(folder)}/" for path in paths if path.is_file() and path.parent != folder}
    return {path for path in modules | folders if recursive or "/" not in path.rstrip("/") or path.startswith("tools/")}


@pytest.mark.parametrize("document", READMES)
def test_a_readme_is_short(document):
    assert len(text_of(document).splitlines()) <= LONGEST


@pytest.mark.parametrize("document", READMES[1:])
def test_the_map_of_a_folder_names_all_that_is_in_it(document):
    folder, found = (ROOT / document).parent, mapped(document)
    assert sorted(tree(folder, recursive=folder.name != "tests") - found.keys()) == []
    assert [path for path in found if not (folder / path).exists()] == []
    assert [path for path, text in found.items() if not text] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_exists(document):
    named = [words for words in inline_code(document) if is_path(words)]
    assert [words for words in named if not exists(words, document)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", FENCE.sub("", text_of(document))):
        path, _, anchor = target.partition("#")
        place = (ROOT / document).parent / path if path else ROOT / document
        assert place.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", FENCE.sub("", place.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_a_document_shows_is_understood(document):
    for words in command_lines(document):
        if words[0] != "--test":  # of run_all.sh itself
            parser(words).parse_args(words)
    called = [words.split() for words in inline_code(document) if words.startswith(("offmarl ", "./run_all.sh "))]
    unknown = [words for words in called if not words[1].startswith("-") and words[1] not in (*COMMANDS, "COMMAND")]
    assert unknown == []


def test_documents_show_commands_and_paths():
    assert len(list(command_lines("README.md"))) > 10
    assert len([words for words in inline_code("README.md") if is_path(words)]) > 10
