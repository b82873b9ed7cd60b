// Libraries that are opened at run time, so that libdlf is linked to none of them.
#pragma once

#include <string>

namespace dlf {

// Returns the library that a user's path means: the file itself or, in a folder, the first file whose name begins with `name`.
std::string library_file(const std::string &place, const std::string &name);

// An open library. It is never closed, because threads that it started may still run.
class SharedLibrary {
public:
    // Opens `file`; a name without a slash is looked for by the dynamic linker. Throws a Failure, BACKEND_MISSING.
    //  what, remedy   for the error's message: the library's purpose, and how to install it
    SharedLibrary(std::string what, std::string file, std::string remedy);

    // Sets `function` to the exported function `name`. Throws a Failure, BACKEND_MISSING.
    template <class Function> void look_up(Function *&function, const char *name) const {
        function = reinterpret_cast<Function *>(symbol(name));
    }

private:
    void *symbol(const char *name) const;
    [[noreturn]] void missing(const std::string &fact) const;

    std::string what_, file_, remedy_;
    void *handle_;
};

} // namespace dlf
