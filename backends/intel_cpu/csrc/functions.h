// Functions of a register's floats that no instruction computes.
#pragma once
#include "vector.h"

namespace inarch {

// e^x within 1.3 units in the last place where the result is a normal number; 0 below.
// tests/functions.cpp measures this and the next two.
// x = n ln(2) + r, |r| <= ln(2) / 2, with ln(2) in two parts; then 1 + r + r^2 q(r), where q was fitted to
// the least relative error, 4e-9 (weighted least squares, reweighted until all extremes are equal).
inline Vector exp(Vector x) {
    const Vector low = splat(-87.336544f);  // of the least normal number
    const Vector bounded = min(max(x, low), splat(88.8f));
    const Vector n = nearest(bounded * splat(1.44269504f));
    const Vector r = fnma(n, splat(-2.12194440e-4f), fnma(n, splat(0.693359375f), bounded));
    Vector q = splat(1.381454058e-3f);
    q = fma(q, r, splat(8.368745446e-3f));
    q = fma(q, r, splat(4.166838899e-2f));
    q = fma(q, r, splat(1.666652113e-1f));
    q = fma(q, r, splat(4.999999404e-1f));
    const Vector power = fma(q, r * r, r + splat(1.0f));
    return where(less(x, low), zero(), scaled(power, n));
}

inline Vector tanh(Vector x) {  // within 2e-7 of the right one
    const Vector e = exp(x + x);
    return where(less(splat(9.0f), x), splat(1.0f), splat(1.0f) - splat(2.0f) / (e + splat(1.0f)));
}

inline Vector sigmoid(Vector x) {  // within 1e-7 of the right one
    return splat(1.0f) / (splat(1.0f) + exp(zero() - x));
}

}  // namespace inarch
