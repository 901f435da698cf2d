"""Who may import whom, and what is installed as what."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rlkit

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_the_engine_names_no_algorithm_and_no_environment() -> None:
    links = {"agents", "envs", "configs"}
    engine = [
        path
        for path in (ROOT / "rlkit").rglob("*.py")
        if path.relative_to(ROOT / "rlkit").parts[0] not in links
    ]
    assert len(engine) > 10
    for path in engine:
        bad = {name for name in imports(path) if name.startswith(("rlkit.agents", "rlkit.envs"))}
        assert not bad, f"{path.relative_to(ROOT)} imports {bad}; go through rlkit.config.registry"


def test_environments_know_the_ground_floor_alone() -> None:
    allowed = {
        "envs",
        "types",
        "spaces",
        "space_json",
        "seeding",
        "options",
        "contracts",
        "machine",
        "processes",
        "files",
        "own",
        "turns",
        "jit",
    }
    for path in (ROOT / "envs").rglob("*.py"):
        found = {name.split(".")[1] for name in imports(path) if name.startswith("rlkit.")}
        assert found <= allowed, f"{path.relative_to(ROOT)} imports {found - allowed} of rlkit"
        assert "rlkit" not in imports(path), path


def test_packages_are_the_folders_with_code() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    found = {"rlkit.configs"}
    for name, folder in setuptools["package-dir"].items():
        for path in (ROOT / folder).rglob("*.py"):
            relative = path.parent.relative_to(ROOT / folder)
            if not (ROOT / folder / (relative.parts or ("",))[0]).is_symlink() or not relative.parts:
                found.add(".".join([name, *relative.parts]))
    assert sorted(setuptools["packages"]) == sorted(found)


def test_every_package_has_an_init() -> None:
    for name in PROJECT["tool"]["setuptools"]["packages"]:
        assert (ROOT / "rlkit").joinpath(*name.split(".")[1:], "__init__.py").is_file(), name


@pytest.mark.parametrize("name", ["agents", "envs"])
def test_a_bare_import_names_the_right_one(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert (
        f"ImportError: this folder is installed as 'rlkit.{name}': use 'from rlkit.{name} import"
        in done.stderr
    )


def test_one_version() -> None:
    assert PROJECT["project"]["version"] == rlkit.__version__


def test_the_package_offers_what_it_says() -> None:
    assert callable(rlkit.train)
    assert callable(rlkit.load)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = rlkit.trian
