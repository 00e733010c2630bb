"""`offmarl new`: write the file of a method or task of your own."""

import argparse
import re
from importlib import resources
from pathlib import Path

from offmarl.experiments.commands.options import examples
from offmarl.experiments.errors import UserError

TEMPLATES = {  # what `offmarl new` writes: package and file
    "method": ("offmarl.experiments.commands.own", "template.py"),
    "task": ("offmarl.benchmarks.own", "example.py"),
}


def new_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `offmarl new`."""
    parser.epilog = examples(
        ("new my_method", "in this folder"),
        ("new my_method --dir algorithms", "in a clone"),
        ("new my_task --kind task", "a task that can be recorded and trained at once"),
    )
    parser.add_argument("name", help="its name on the command line, as my_method")
    parser.add_argument("--kind", choices=TEMPLATES, default="method", help="what it is (default: method)")
    parser.add_argument("--dir", type=Path, default=Path(), help="folder of the new file (default: this folder)")
    parser.set_defaults(command=_new)


def _new(args: argparse.Namespace) -> int:
    from offmarl.algorithms import registry

    file = args.dir / f"{args.name}.py"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", args.name):
        raise UserError(f"new {args.name}: a name has small letters, digits and underscores, as my_method")
    if args.kind == "method" and args.name in registry():
        raise UserError(f"new {args.name}: a method of this name exists; choose another")
    if not args.dir.is_dir():
        raise UserError(f"--dir {args.dir}: no such directory")
    words = [word.capitalize() for word in args.name.split("_")]
    package, template = TEMPLATES[args.kind]
    text = resources.files(package).joinpath(template).read_text(encoding="utf-8")
    names = {"FAMILY": "mine", "template": args.name, "Template": "".join(words), "TITLE": " ".join(words)}
    for placeholder, value in names.items():
        text = text.replace(placeholder, value)
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError as error:
        raise UserError(f"new {args.name}: {file} exists; it was not changed") from error
    except OSError as error:
        raise UserError(f"new {args.name}: {file} cannot be written ({error.strerror})") from error
    print(f"wrote {file}\nnext: offmarl validate {file}")
    return 0
