"""What the tests of downloads ask for, from the hub of tests/datasets/public/conftest.py."""

from offmarl.datasets.public.download import Download

REPO, COMMIT = "InstaDeepAI/og-marl", "c0ffee" + "0" * 34


def zip_of(path="core/3m.zip", into="smac", **facts):
    return Download(into, REPO, path, **facts)


def plain(url, into="data/file.bin"):
    return Download(into, url=url)


def unpacked(files):
    return {f"smac/{name}": data for name, data in (files.VAULT | {"3m.vlt/Good/more.bin": files.CONTENT}).items()}
