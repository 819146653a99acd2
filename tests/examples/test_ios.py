"""The example app: its Swift parses, its Xcode project is whole, and what it names is there or is exported."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import EXAMPLES
from swift import syntax_problems

from morvit_deploy.exporters.coreai.names import ASSET
from morvit_deploy.exporters.coreml.contract.names import PACKAGE
from morvit_deploy.exporters.kit.write import DESCRIPTION, TEMPLATE

IOS = EXAMPLES / "ios"
PROJECT = IOS / "MoRViTCamera.xcodeproj" / "project.pbxproj"
EXPORTED = (
    "Model/MoRViTKit"  # what the project names of the bundle; it follows MoRViTCamera/, where the model lies
)
TOKEN = re.compile(
    r'\s+|//[^\n]*|/\*.*?\*/|(?P<text>"(?:[^"\\]|\\.)*"|[\w./$]+)|(?P<sign>[{}()=;,])', re.DOTALL
)


def parse_plist(text: str) -> Any:
    """An old-style property list: dictionaries, arrays and strings. ValueError where it breaks the grammar."""
    tokens, place = [], 0
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"{text[place : place + 20]!r} is no token")
        tokens += [match["text"] or match["sign"]] if match["text"] or match["sign"] else []
        place = match.end()
    stream = iter(tokens)
    value = _value(stream, next(stream))
    if next(stream, None) is not None:
        raise ValueError("something follows the list")
    return value


def _value(stream: Iterator[str], token: str) -> Any:
    if token == "{":
        content: dict[str, Any] = {}
        while (key := next(stream)) != "}":
            _expect(stream, "=")
            if _plain(key) in content:
                raise ValueError(f"{key} stands twice")
            content[_plain(key)] = _value(stream, next(stream))
            _expect(stream, ";")
        return content
    if token == "(":
        items = []
        while (item := next(stream)) != ")":
            items.append(_value(stream, item))
            _expect(stream, ",")
        return items
    return _plain(token)


def _plain(token: str) -> str:
    if token in "{}()=;,":
        raise ValueError(f"{token!r} in place of a string")
    return token[1:-1] if token.startswith('"') else token


def _expect(stream: Iterator[str], sign: str) -> None:
    if (token := next(stream)) != sign:
        raise ValueError(f"got {token!r}, expected {sign!r}")


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    """The project's objects by their id."""
    found: dict[str, dict[str, Any]] = parse_plist(PROJECT.read_text(encoding="utf-8"))["objects"]
    return found


def of(objects: dict[str, dict[str, Any]], isa: str) -> list[dict[str, Any]]:
    return [each for each in objects.values() if each["isa"] == isa]


def test_every_swift_file_parses() -> None:
    sources = sorted(IOS.rglob("*.swift"))
    assert len(sources) >= 8
    assert [problem for source in sources for problem in syntax_problems(source)] == []


def test_every_reference_inside_the_project_resolves(objects: dict[str, dict[str, Any]]) -> None:
    ids = set(re.findall(r"\b5A[0-9]{22}\b", PROJECT.read_text(encoding="utf-8")))
    assert ids == set(objects)


def test_everything_the_project_has_is_used(objects: dict[str, dict[str, Any]]) -> None:
    project = parse_plist(PROJECT.read_text(encoding="utf-8"))
    mentioned = json.dumps(project)
    assert [number for number in objects if mentioned.count(number) < 2] == []
    assert objects[project["rootObject"]]["isa"] == "PBXProject"
    assert int(project["objectVersion"]) == 77  # Xcode 16, the first with folders that are followed


def test_files_exist_or_are_exported(objects: dict[str, dict[str, Any]]) -> None:
    files = [each["path"] for each in of(objects, "PBXFileReference") if each["sourceTree"] == "<group>"]
    folders = [each["path"] for each in of(objects, "PBXFileSystemSynchronizedRootGroup")]
    packages = [each["relativePath"] for each in of(objects, "XCLocalSwiftPackageReference")]
    assert [*files, *packages] == [EXPORTED]
    assert folders == ["MoRViTCamera"] and all((IOS / folder).is_dir() for folder in folders)
    assert '-o "$here/Model"' in (IOS / "prepare.sh").read_text()
    assert "Model/" in (IOS / ".gitignore").read_text().split()


def test_the_app_is_linked_with_the_library(objects: dict[str, dict[str, Any]]) -> None:
    (target,) = of(objects, "PBXNativeTarget")
    (product,) = (objects[number] for number in target["packageProductDependencies"])
    assert f'.library(name: "{product["productName"]}"' in (TEMPLATE / "Package.swift").read_text()
    assert objects[product["package"]]["relativePath"] == "Model/MoRViTKit"
    built = [objects[number] for phase in target["buildPhases"] for number in objects[phase]["files"]]
    assert [objects[each["productRef"]] for each in built] == [product]
    assert target["fileSystemSynchronizedGroups"] == [
        number for number, each in objects.items() if each["isa"] == "PBXFileSystemSynchronizedRootGroup"
    ]


def test_settings_are_those_of_an_app_with_a_camera(objects: dict[str, dict[str, Any]]) -> None:
    (target,) = of(objects, "PBXNativeTarget")
    for number in objects[target["buildConfigurationList"]]["buildConfigurations"]:
        settings = objects[number]["buildSettings"]
        assert settings["INFOPLIST_KEY_NSCameraUsageDescription"]
        assert settings["GENERATE_INFOPLIST_FILE"] == "YES" and settings["CODE_SIGN_STYLE"] == "Automatic"
        assert "DEVELOPMENT_TEAM" not in settings
    (project,) = of(objects, "PBXProject")
    for number in objects[project["buildConfigurationList"]]["buildConfigurations"]:
        assert objects[number]["buildSettings"]["IPHONEOS_DEPLOYMENT_TARGET"] == "18.0"


def test_catalogues_are_json_and_named_in_the_settings(objects: dict[str, dict[str, Any]]) -> None:
    catalogue = IOS / "MoRViTCamera" / "Assets.xcassets"
    assert all("info" in json.loads(file.read_text()) for file in catalogue.rglob("Contents.json"))
    (target,) = of(objects, "PBXNativeTarget")
    configurations = objects[target["buildConfigurationList"]]["buildConfigurations"]
    for settings in (objects[number]["buildSettings"] for number in configurations):
        icon = settings["ASSETCATALOG_COMPILER_APPICON_NAME"]
        assert (catalogue / f"{icon}.appiconset" / "Contents.json").is_file()


@pytest.mark.parametrize(
    "text", ["{ a = b }", "{ a = (b c); }", "{ a = b; a = c; }", "{ a = b; } c", "{ a == b; }"]
)
def test_the_parser_refuses_broken_lists(text: str) -> None:
    with pytest.raises(ValueError):
        parse_plist(text)


def test_the_sample_is_in_the_app() -> None:
    assert (IOS / "MoRViTCamera" / "Sample.png").is_file()
    assert (
        'forResource: "Sample", withExtension: "png"'
        in (IOS / "MoRViTCamera" / "PhotoScreen.swift").read_text()
    )


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a POSIX shell")
def test_prepare_exports_to_where_the_project_looks(tmp_path: Path) -> None:
    """With a stand-in for the command that writes down how it was called, and a bundle."""
    ios = tmp_path / "ios"
    (ios / "MoRViTCamera").mkdir(parents=True)
    shutil.copy(IOS / "prepare.sh", ios)
    stand_in = tmp_path / "morvit-deploy"
    lines = [
        "#!/bin/sh",
        f'printf "%s\\n" "$@" > {tmp_path}/called',
        f"rm -rf {ios}/Model",
        f"mkdir {ios}/Model",
    ]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    core_ai = ["some checkpoint", "--plan", "a plan.json", "--target", "coreai"]
    for given, model in ((list[str](), PACKAGE), (core_ai, ASSET)):
        bundle = [
            f"mkdir {ios}/Model/{model}",
            f"touch {ios}/Model/{DESCRIPTION} {ios}/Model/{model}/weights",
        ]
        stand_in.write_text("\n".join([*lines, *bundle]) + "\n")
        stand_in.chmod(0o755)
        subprocess.run(["sh", str(ios / "prepare.sh"), *given], env={**os.environ, "PATH": path}, check=True)
        called = (tmp_path / "called").read_text().splitlines()
        checkpoint, *options = given or [f"{ios}/../digits-expert"]
        fixed = ["--target", "coreml", "--with-depth", "--force", "-o", str(ios / "Model")]
        assert called == ["export", checkpoint, *fixed, *options]
        copied = ios / "MoRViTCamera" / "Model"
        assert sorted(path.name for path in copied.iterdir()) == sorted([DESCRIPTION, model])
        assert (copied / model / "weights").is_file()
