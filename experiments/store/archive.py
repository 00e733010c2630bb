"""The records of many runs in one file, without curves and weights: small enough to commit and to ship.

The file is an xz-compressed tar archive of `<run id>/run.json` and `<run id>/SHA256SUMS`, and of the networks that act
(`checkpoint.pt`) where policies are kept. The same runs give the same bytes. Unpacked it is a store, in which every run
is done that was done. An archive of cards has the numbers that `offmarl data card` writes, as `cards/<name>.json`.
"""

import io
import lzma
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from offmarl.experiments.errors import UserError
from offmarl.reports.records import checksums

SUFFIX = ".tar.xz"
CARDS = "cards"  # the folder of cards in a results directory
OF_RUN = "|".join(map(re.escape, (checksums.RECORD, checksums.POLICY, checksums.SUMS)))
MEMBER = re.compile(rf"{CARDS}/[^/.][^/]*\.json|[^/.][^/]*/({OF_RUN})")


def pack(folders: Iterable[Path], path: Path, policy: Callable[[Path], bytes] | None = None) -> None:
    """Write the records in the folders of some runs to an archive, with the `policy` of each where that is given."""
    with _packing(path) as archive:
        for folder in sorted(folders):
            files = {checksums.RECORD: (folder / checksums.RECORD).read_bytes()}
            files |= {checksums.POLICY: policy(folder)} if policy else {}
            for name, content in (files | {checksums.SUMS: checksums.sums_of(files).encode()}).items():
                _add(archive, f"{folder.name}/{name}", content)


def pack_cards(folder: Path, path: Path) -> None:
    """Write the numbers of the cards in a folder to an archive."""
    with _packing(path) as archive:
        for card in sorted(folder.glob("[!.]*.json")):
            _add(archive, f"{CARDS}/{card.name}", card.read_bytes())


@contextmanager
def unpacked(*paths: Path) -> Iterator[Path]:
    """A results directory with what some archives hold, within the block. Raises UserError for a damaged one."""
    with tempfile.TemporaryDirectory(prefix="offmarl-records-") as scratch:
        results = Path(scratch)
        for name in ("runs", CARDS):
            (results / name).mkdir()
        for path in paths:
            try:
                _unpack(path, results)
            except (OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
                advice = "`offmarl export --format records` writes one of runs, `offmarl data card --out` one of cards"
                raise UserError(f"{path}: is no archive of runs or cards, or is damaged ({error}); {advice}") from error
        yield results


def shipped() -> list[Path]:
    """The archives of the reference results, and of the cards of their data. Raises UserError where there are none."""
    folder = Path(str(resources.files("offmarl.reports"))) / "reference"
    if not (found := sorted(folder.glob(f"*{SUFFIX}"))):
        raise UserError(
            f"{folder}: there are no reference results here; install offmarl again, or leave out --reference"
        )
    return found


@contextmanager
def _packing(path: Path) -> Iterator[tarfile.TarFile]:
    with lzma.open(path, "wb", preset=9) as file, tarfile.open(fileobj=file, mode="w") as archive:
        yield archive


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # of no time and no owner
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _unpack(path: Path, results: Path) -> None:
    with lzma.open(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() and MEMBER.fullmatch(member.name) else None
            if content is None:
                raise tarfile.ReadError(f"it holds {member.name}")
            place = results / ("" if member.name.startswith(f"{CARDS}/") else "runs") / member.name
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content.read())
        while file.read(1 << 20):  # to the very end, where the sums of the compression stand
            pass
