// The largest errors of functions.h's functions, printed: units in the last place of exp, and absolute ones of
// tanh and sigmoid. Over floats of both signs, by their bits, STRIDE apart, up to 88.72.
#include "functions.h"

#include <cstdio>

using namespace inarch;

constexpr uint32_t STRIDE = 997, END = 0x42b170a4;  // 88.72f, and e^x is no larger than a float may be

double ulps(float got, double right) {
    int exponent;
    std::frexp(right, &exponent);
    return std::fabs(got - right) / std::ldexp(1.0, exponent - 24);
}

int main() {
    double of_exp = 0, of_tanh = 0, of_sigmoid = 0;
    for (uint32_t bits = 0; bits < END; bits += STRIDE) {
        for (const float x : {std::bit_cast<float>(bits), -std::bit_cast<float>(bits)}) {
            float e[WIDTH], t[WIDTH], s[WIDTH];
            store(e, exp(splat(x)));
            store(t, inarch::tanh(splat(x)));
            store(s, sigmoid(splat(x)));
            const double wide = x, right = std::exp(wide);
            if (x > -87.3365f) of_exp = std::max(of_exp, ulps(e[0], right));
            of_tanh = std::max(of_tanh, std::fabs(t[0] - std::tanh(wide)));
            of_sigmoid = std::max(of_sigmoid, std::fabs(s[0] - 1 / (1 + 1 / right)));
        }
    }
    std::printf("%g %g %g\n", of_exp, of_tanh, of_sigmoid);
}
