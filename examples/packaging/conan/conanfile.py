"""Conan 2 recipe of libdlf, from the tree that it lies in: `conan create examples/packaging/conan --build=missing`."""

import re
from pathlib import Path

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy

NATIVE = Path("runtime", "native")


class Dlf(ConanFile):
    """The DLF image codec behind a C ABI; OpenVINO is opened at run time and no requirement."""

    name = "dlf"
    license = "Apache-2.0"
    description = "The DLF image codec"
    package_type = "shared-library"
    settings = "os", "arch", "compiler", "build_type"

    def set_version(self):
        """Take the version from dlf.h."""
        header = (self._root / NATIVE / "include" / "dlf.h").read_text(encoding="utf-8")
        self.version = ".".join(re.findall(r"#define DLF_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header))

    def export_sources(self):
        """Take the library's folder of the tree, and its licence."""
        copy(self, "*", self._root / NATIVE, Path(self.export_sources_folder) / NATIVE)
        copy(self, "LICENSE", self._root, self.export_sources_folder)

    def requirements(self):
        """nlohmann_json is a header of the build alone."""
        self.requires("nlohmann_json/[>=3.11 <4]", visible=False)

    def layout(self):
        """CMake's folders."""
        cmake_layout(self, src_folder=".")

    def generate(self):
        """Tell CMake of the compiler, and where the header of nlohmann_json is."""
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["NLOHMANN_JSON"] = self.dependencies["nlohmann_json"].cpp_info.includedirs[0]
        toolchain.generate()

    def build(self):
        """Configure and build."""
        cmake = CMake(self)
        cmake.configure(build_script_folder=str(NATIVE))
        cmake.build()

    def package(self):
        """Install, as `cmake --install` does."""
        CMake(self).install()
        copy(self, "LICENSE", self.source_folder, Path(self.package_folder) / "licenses")

    def package_info(self):
        """The package's own dlf-config.cmake and dlf.pc are the ones that are found."""
        self.cpp_info.libs = ["dlf"]
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = ["lib/cmake/dlf"]

    @property
    def _root(self) -> Path:
        return Path(self.recipe_folder).parents[2]
