# An overlay port, from the tree that it lies in: vcpkg install dlf --overlay-ports=examples/packaging/vcpkg
# A port in a registry fetches a release instead, with vcpkg_from_github.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)

# CMakeLists.txt builds a shared library alone.
set(VCPKG_LIBRARY_LINKAGE dynamic)
vcpkg_cmake_configure(SOURCE_PATH "${SOURCE_PATH}/runtime/native")
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/dlf)
vcpkg_fixup_pkgconfig()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include" "${CURRENT_PACKAGES_DIR}/debug/share")
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
