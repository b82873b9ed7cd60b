"""What `conan create` does with the package: build a program that finds it with CMake, and run that."""

from pathlib import Path

from conan import ConanFile
from conan.tools.build import can_run
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout


class TestDlf(ConanFile):
    """A program that prints the library's version."""

    settings = "os", "arch", "compiler", "build_type"
    generators = "VirtualRunEnv"

    def requirements(self):
        """The package under test."""
        self.requires(self.tested_reference_str)

    def layout(self):
        """CMake's folders."""
        cmake_layout(self)

    def generate(self):
        """Tell CMake of the compiler and the package, and write no presets beside the sources."""
        toolchain = CMakeToolchain(self)
        toolchain.user_presets_path = False
        toolchain.generate()

    def build(self):
        """Configure and build."""
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def test(self):
        """Run the program, where it is one for this machine."""
        if can_run(self):
            program = Path(self.build_folder, self.cpp.build.bindir, "version")
            self.run(f'"{program}"', env="conanrun")
