// Libraries that are opened at run time, so that libdlf is linked to none of them.
#pragma once

#include <string>

namespace dlf {

// The file that a user's word for a library means: itself, or in a folder the first whose name begins with `name`.
std::string library_file(const std::string &place, const std::string &name);

// An open library. It is never closed: it may have started threads, which outlive what has started them.
class SharedLibrary {
public:
    // Opens `file`; a name without a slash is looked for by the dynamic linker. Throws a Failure, BACKEND_MISSING.
    //  what, remedy   for its message: what the library is to the user, and how to get it
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
