// How Python calls a kernel: one array of 64-bit values, described by a string of letters.
//
// INARCH_EXPORT(name, function) makes from an ordinary function of pointers, integers and doubles
// the flat symbols `inarch_name` (the entry) and `inarch_name_signature` ("ppiif": a letter for each
// argument: p pointer, i int64_t, f double), which `call.c` checks what it is given against. The entry
// returns 0, or 1 where memory was lacking: then nothing that it was to write can be relied on.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

namespace inarch {

union Argument {
    void* p;
    int64_t i;
    double f;
};

template <class T> constexpr char letter() {
    if constexpr (std::is_pointer_v<T>) return 'p';
    else if constexpr (std::is_same_v<T, int64_t>) return 'i';
    else {
        static_assert(std::is_same_v<T, double>, "kernels take pointers, int64_t and double");
        return 'f';
    }
}

template <class T> T unpacked(const Argument& a) {
    if constexpr (std::is_pointer_v<T>) return static_cast<T>(a.p);
    else if constexpr (std::is_same_v<T, int64_t>) return a.i;
    else return a.f;
}

template <class F> struct Entry;

template <class... T> struct Entry<void (*)(T...)> {
    static constexpr char signature[] = {letter<T>()..., '\0'};

    static int run(void (*function)(T...), const Argument* arguments) {
        try {
            call(function, arguments, std::index_sequence_for<T...>{});
            return 0;
        } catch (const std::bad_alloc&) {
            return 1;
        }
    }

    template <std::size_t... N>
    static void call(void (*function)(T...), const Argument* arguments, std::index_sequence<N...>) {
        function(unpacked<T>(arguments[N])...);
    }
};

}  // namespace inarch

#define INARCH_VISIBLE extern "C" __attribute__((visibility("default")))

#define INARCH_EXPORT(name, function)                                                    \
    INARCH_VISIBLE int inarch_##name(const inarch::Argument* arguments) {                \
        return inarch::Entry<decltype(&function)>::run(&function, arguments);            \
    }                                                                                    \
    INARCH_VISIBLE const char* inarch_##name##_signature() {                             \
        return inarch::Entry<decltype(&function)>::signature;                            \
    }
