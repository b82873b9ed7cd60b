"""`cmake --install` puts libdlf where C programs find it, with find_package and with pkg-config."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.built import NATIVE, released
from helpers.c import cmake, tool

import dlf

PROGRAM = "#include <dlf.h>\n#include <stdio.h>\nint main(void) { puts(dlf_version()); return 0; }\n"
PROJECT = """cmake_minimum_required(VERSION 3.21)
project(user C)
find_package(dlf {version} REQUIRED)
add_executable(user user.c)
target_link_libraries(user dlf::dlf)
"""

pytestmark = pytest.mark.slow  # the library is built


def run(*command: object) -> str:
    found = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed libdlf, in a folder with a space in its name, moved after its installation."""
    folder = tmp_path_factory.mktemp("installed here")
    run(cmake(), "--install", released("dlf"), "--prefix", folder / "first")
    return Path(shutil.move(folder / "first", folder / "moved"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "user.c").write_text(PROGRAM)
    return tmp_path


def test_find_package(prefix, project):
    (project / "CMakeLists.txt").write_text(PROJECT.format(version="0.1"))
    run(cmake(), "-S", project, "-B", project / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run(cmake(), "--build", project / "build")
    assert run(project / "build" / "user").strip() == dlf.__version__


def test_another_version_is_not_found(prefix, project):
    (project / "CMakeLists.txt").write_text(PROJECT.format(version="0.2"))
    command = [cmake(), "-S", str(project), "-B", str(project / "build"), f"-DCMAKE_PREFIX_PATH={prefix}"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode != 0 and "requested version" in found.stderr


def test_pkg_config_names_the_installed_folders(prefix):
    (description,) = prefix.glob("lib*/**/dlf.pc")
    values = dict(re.findall(r"^(\w+)=(.*)$", description.read_text(), re.MULTILINE))
    folders = {name: Path(value.replace("${pcfiledir}", str(description.parent))) for name, value in values.items()}
    assert (folders["includedir"] / "dlf.h").is_file()
    assert (folders["libdir"] / "libdlf.so").is_file()


def test_pkg_config_gives_flags_that_build_a_program(prefix, project):
    (description,) = prefix.glob("lib*/**/dlf.pc")
    asking = [tool("pkg-config", "pkg-config"), "--cflags", "--libs", "dlf >= 0.1"]
    environment = os.environ | {"PKG_CONFIG_PATH": str(description.parent)}
    flags = shlex.split(subprocess.run(asking, env=environment, capture_output=True, text=True, check=True).stdout)
    run(tool("cc", "gcc"), project / "user.c", *flags, "-o", project / "user")
    assert run(project / "user").strip() == dlf.__version__


def test_folders_may_be_absolute(tmp_path):
    """As distributions give them that keep libraries and headers apart."""
    libraries, headers = tmp_path / "libraries", tmp_path / "headers"
    folders = (f"-DCMAKE_INSTALL_LIBDIR={libraries}", f"-DCMAKE_INSTALL_INCLUDEDIR={headers}")
    run(cmake(), "-S", NATIVE, "-B", tmp_path / "build", *folders)
    places = dict(re.findall(r"^(\w+)=\$\{pcfiledir\}/(.*)$", (tmp_path / "build" / "dlf.pc").read_text(), re.MULTILINE))
    found = {name: (libraries / "pkgconfig" / place).resolve() for name, place in places.items()}
    assert found == {"libdir": libraries.resolve(), "includedir": headers.resolve()}


def test_names_carry_the_version_of_the_interface(prefix):
    major, minor, _ = dlf.__version__.split(".")
    (library,) = prefix.glob(f"lib*/**/libdlf.so.{dlf.__version__}")
    dynamic = run("readelf", "-d", library)
    assert f"[libdlf.so.{major}.{minor}]" in dynamic
    symbols = re.findall(r"(dlf_\w+)@@(\S+)", run("readelf", "--dyn-syms", "--wide", library))
    assert ("dlf_decode", f"DLF_{major}.{minor}") in symbols
    assert {version for _, version in symbols} == {f"DLF_{major}.{minor}"}
