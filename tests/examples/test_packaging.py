"""examples/packaging: the recipes for C's package managers say what the library says of itself, and Conan builds from its one.

vcpkg itself is not to be had from a package registry: its port is only held against the tree.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nlohmann_json
import pytest
from helpers.c import EXAMPLES, ROOT, cmake

import dlf

PACKAGING = EXAMPLES / "packaging"
# What ConanCenter has, so that the test needs no network.
HEADER = """from conan import ConanFile
from conan.tools.files import copy
class Json(ConanFile):
    name, version, package_type = "nlohmann_json", "3.12.0", "header-library"
    def package(self):
        copy(self, "nlohmann/*", {include!r}, self.package_folder + "/include")
"""


def test_vcpkg_manifest():
    manifest = json.loads((PACKAGING / "vcpkg" / "dlf" / "vcpkg.json").read_text())
    assert manifest["name"] == "dlf" and manifest["version"] == dlf.__version__
    names = [entry if isinstance(entry, str) else entry["name"] for entry in manifest["dependencies"]]
    assert "nlohmann-json" in names and {"vcpkg-cmake", "vcpkg-cmake-config"} <= set(names)
    assert re.search(r"nlohmann/json\.hpp", (ROOT / "runtime" / "native" / "CMakeLists.txt").read_text())


def test_vcpkg_port_takes_this_tree():
    port = PACKAGING / "vcpkg" / "dlf"
    steps = re.search(r'"\$\{CMAKE_CURRENT_LIST_DIR\}((?:/\.\.)+)"', (port / "portfile.cmake").read_text())
    assert steps and Path(f"{port}{steps[1]}").resolve() == ROOT


@pytest.mark.slow  # the library is built
def test_conan_creates_the_package(tmp_path):
    pytest.importorskip("conan")
    path = f"{Path(sys.executable).parent}:{Path(cmake()).parent}:{os.environ['PATH']}"
    environment = os.environ | {"CONAN_HOME": str(tmp_path / "home"), "PATH": path}

    def run(*arguments: object) -> str:
        command = [str(Path(sys.executable).with_name("conan")), *map(str, arguments)]
        found = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout + found.stderr

    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "conanfile.py").write_text(HEADER.format(include=f"{nlohmann_json.__path__[0]}/include"))
    outside = f"tools.cmake.cmake_layout:test_folder={tmp_path / 'test package'}"
    run("profile", "detect")
    run("remote", "disable", "*")
    run("create", tmp_path / "json")
    assert f"libdlf {dlf.__version__}" in run("create", PACKAGING / "conan", "-c", outside)
