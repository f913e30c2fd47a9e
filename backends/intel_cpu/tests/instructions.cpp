// What the emulated instructions compute: examples that tell the documented order of a sum, and what
// becomes of denormals, from any other; and, where the processor has the instructions, the same bits on
// random numbers. Prints a line for each check, "wrong" or "right" first.
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <random>

#include "amx.h"
#include "pairs.h"

using namespace inarch;
using amx::Shapes;

void check(bool right, const char* what) { std::printf("%s %s\n", right ? "right" : "wrong", what); }

bf16 half(float x) { return rounded<bf16>(x); }

// One lane of c + a[1] b[1] + a[0] b[0]
float dot(float c, float a0, float a1, float b0, float b1) {
    bf16 a[2] = {half(a0), half(a1)}, b[2] = {half(b0), half(b1)};
    float out[WIDTH];
    store(out, emulated::dot_pairs(splat(c), splat_pair(a), splat_pair(b)));
    return out[0];
}

// One number of C + A B, with the inputs of a single row and column
template <int N> float product(float c, const float (&a)[N], const float (&b)[N]) {
    namespace tiles = amx::emulated;
    Shapes shapes;
    shapes.set(0, 1, 4), shapes.set(1, 1, 2 * N), shapes.set(2, N / 2, 4);
    tiles::configure(shapes);
    bf16 from_a[N], from_b[N];
    for (int n = 0; n < N; n++) from_a[n] = half(a[n]), from_b[n] = half(b[n]);
    tiles::load<0>(&c, 4), tiles::load<1>(from_a, 2 * N), tiles::load<2>(from_b, 4);
    tiles::multiply_bf16<0, 1, 2>();
    tiles::store<0>(&c, 4);
    return c;
}

void check_examples() {
    // 2^30 swallows a 1 that is added to it, unless both are added apart.
    check(dot(0x1p30f, 1, -0x1p15f, 1, 0x1p15f) == 1, "the second of a pair is added first");
    check(dot(-0x1p30f, 0x1p15f, 1, 0x1p15f, 1) == 0, "then the first");
    check(dot(0, 0x1p-130f, 0, 0x1p10f, 0) == 0, "denormals count as zero");
    check(dot(0, 0x1p-70f, 0, 0x1p-70f, 0) == 0 && dot(0, 0x1p-63f, 0, 0x1p-63f, 0) == 0x1p-126f, "and become it");
    check(product<4>(0, {0x1p15f, 1, -0x1p15f, 1}, {0x1p15f, 1, 0x1p15f, 1}) == 2, "tiles sum even and odd inputs apart");
    check(product<4>(0x1p30f, {32, 32, 32, 32}, {1, 1, 1, 1}) == 0x1p30f + 128, "each from zero, not from C");
    check(product<2>(0x1p-127f, {0, 0}, {0, 0}) == 0, "a denormal in C counts as zero");
    check(product<2>(0, {0x1p-130f, 0x1p-70f}, {0x1p10f, 0x1p-70f}) == 0, "as elsewhere in tiles");
}

struct Random {
    std::mt19937 bits{1};

    bf16 number() {  // of any size, denormals too, but no NaN or infinity
        const uint32_t x = bits();
        const uint32_t exponent = x % 8 == 0 ? x >> 8 & 1 : 64 + (x >> 8 & 127);
        return {static_cast<uint16_t>((x >> 31) << 15 | exponent << 7 | (x >> 20 & 127))};
    }
};

#ifdef __AVX512BF16__
void check_dots() {
    Random random;
    bool same = true;
    for (int round = 0; round < 20000; round++) {
        bf16 numbers[4 * WIDTH];
        for (bf16& each : numbers) each = random.number();
        const Vector c = splat(number(random.number()) * (round % 3 ? 1.0f : 1.0001f));
        float ours[WIDTH], own[WIDTH];
        const Ints a = load_ints(numbers), b = load_ints(numbers + 2 * WIDTH);
        store(ours, emulated::dot_pairs(c, a, b)), store(own, dot_pairs(c, a, b));
        same = same && !std::memcmp(ours, own, sizeof own);
    }
    check(same, "VDPBF16PS of this processor gives the same bits");
}
#endif

#ifdef __AMX_TILE__
template <class T> struct Matrices {
    alignas(64) T a[16][64 / sizeof(T)], b[16][64 / sizeof(T)];
    alignas(64) uint32_t c[16][16], ours[16][16], own[16][16];
};

void check_tiles() {
    namespace by = amx::by_processor;
    namespace tiles = amx::emulated;
    if (syscall(SYS_arch_prctl, 0x1023, 18)) return check(true, "no permission to use tiles: not run");
    Random random;
    bool floats = true, bytes = true;
    for (int round = 0; round < 2000; round++) {
        const int rows = 1 + round % 16, inputs = 4 + round % 13 * 5 / 4 * 4;
        Shapes shapes;
        shapes.set(0, rows, 64), shapes.set(1, rows, inputs), shapes.set(2, inputs / 4, 64);
        Matrices<bf16> it;
        for (auto& row : it.a) for (bf16& each : row) each = random.number();
        for (auto& row : it.b) for (bf16& each : row) each = random.number();
        for (auto& row : it.c) for (uint32_t& each : row) each = std::bit_cast<uint32_t>(number(random.number()));
        by::configure(shapes), tiles::configure(shapes);
        by::load<0>(it.c, 64), by::load<1>(it.a, 64), by::load<2>(it.b, 64);
        by::multiply_bf16<0, 1, 2>(), by::store<0>(it.own, 64);
        tiles::load<0>(it.c, 64), tiles::load<1>(it.a, 64), tiles::load<2>(it.b, 64);
        tiles::multiply_bf16<0, 1, 2>(), tiles::store<0>(it.ours, 64);
        floats = floats && !std::memcmp(it.own, it.ours, 64 * rows);
        by::load<0>(it.c, 64), by::multiply_bytes<0, 1, 2>(), by::store<0>(it.own, 64);
        tiles::load<0>(it.c, 64), tiles::multiply_bytes<0, 1, 2>(), tiles::store<0>(it.ours, 64);
        bytes = bytes && !std::memcmp(it.own, it.ours, 64 * rows);
    }
    by::release();
    check(floats, "TDPBF16PS of this processor gives the same bits");
    check(bytes, "TDPBSUD of this processor gives the same bits");
}
#endif

int main(int count, char**) {
    if (count > 1) amx::emulated::zero<3>();  // before it is configured
    check_examples();
#ifdef __AVX512BF16__
    check_dots();
#endif
#ifdef __AMX_TILE__
    check_tiles();
#endif
}
