/* The scalars of rows, in double and eight rows at once: the formulas of Khungurn (2018), in a form
 * that does not cancel. Included once, after exp.inc.h for double; knows neither the dtype of the
 * logits, nor strides, nor threads.
 *
 * With U = 2^exponent * e^shift, the unit of a row's sums:
 *
 *     ratio = others / e_c, others being the sum over the classes but the target
 *
 *     loss = ln(1 + ratio), never a difference
 *
 *     scale = upstream / (others + e_c), so that q_j * upstream = e_j * scale;
 *     in units of 1 / U it is upstream * (U / e_c) / (1 + ratio)
 *
 *     gradient_c = -others * scale
 *
 * With options, z being logits times `scale` and every class j having a coefficient c_j, of which
 * `own` is the target's and `rest` is the sum of all others:
 *
 *     loss = sum_j c_j (lse - z_j) + square * lse^2, where
 *     lse - z_j = loss_c + (z_c - top) + (top - z_j)
 *
 *     gradient_j = upstream * (A q_j - c_j), A = own + rest + 2 * square * lse
 *     gradient_c = upstream * ((rest + 2 * square * lse) q_c - own * (1 - q_c))
 *
 * `single` tells that the results become float, for which double suffices; else what an operation
 * loses is carried along. No library's exp or log is called, so that the bits are those of this
 * source. */

#include "double_double.h"
#include "log_f64.h"

typedef f64_vec vec;

/* A vector as an unevaluated sum. */
struct pair {
    vec high, low;
};

/* e^x = (value.high + value.low) * 2^exponent, x = exponent * ln 2 + rest. */
struct scaled {
    struct pair value;
    vec exponent, rest;
};

static const double LN2 = 0x1.62e42fefa39efp-1;

XENT_INLINE vec number(double x) { return f64_set1(x); }

XENT_INLINE double first(vec x) {
    double lane[f64_LANES];
    f64_store(lane, x);
    return lane[0];
}

XENT_INLINE vec minimum(vec x, vec y) { return f64_less(y, x, y, x); } /* x where either is NaN */

XENT_INLINE vec negative(vec x) { return f64_sub(number(0), x); }

XENT_INLINE vec magnitude(vec x) { return f64_max(negative(x), x); }

XENT_INLINE vec is_number_else(vec x, vec other) {
    return f64_less(magnitude(x), number(INFINITY), x, other);
}

/* a - b, exactly unless `single`; low is zero where it is no number. */
XENT_INLINE struct pair subtract(vec a, vec b, bool single) {
    if (single) {
        return (struct pair){f64_sub(a, b), number(0)};
    }
    const vec high = f64_sub(a, b), back = f64_sub(high, a);
    const vec low = f64_sub(f64_sub(a, f64_sub(high, back)), f64_add(b, back));
    return (struct pair){high, is_number_else(low, number(0))};
}

/* a * b and, unless the results are rounded to float (`single`), what it loses. */
XENT_INLINE struct pair multiply(struct pair a, struct pair b, bool single) {
    const vec high = f64_mul(a.high, b.high);
    if (single) {
        return (struct pair){high, number(0)};
    }
    const vec error = f64_product_error(a.high, b.high, high);
    return (struct pair){high, f64_fma(a.high, b.low, f64_fma(a.low, b.high, error))};
}

XENT_INLINE struct pair divide(struct pair a, struct pair b, bool single) {
    const vec high = f64_div(a.high, b.high);
    if (single) {
        return (struct pair){high, number(0)};
    }
    const struct pair back = multiply((struct pair){high, number(0)}, b, false);
    const vec rest = f64_add(f64_sub(f64_sub(a.high, back.high), back.low), a.low);
    return (struct pair){high, f64_div(rest, b.high)};
}

/* 2^exponent for integers from -1022 to 1023. */
XENT_INLINE vec power_of_two(vec exponent) {
    return f64_to_exponent(f64_add(exponent, number(f64_ROUND + f64_BIAS)));
}

/* x * 2^exponent for integers from -1022 to 1023. */
XENT_INLINE vec scale_directly(vec x, vec exponent) { return f64_mul(x, power_of_two(exponent)); }

/* The nearest integer, for |x| < 2^51. */
XENT_INLINE vec nearest(vec x) { return f64_sub(f64_add(x, number(f64_ROUND)), number(f64_ROUND)); }

/* x * 2^exponent, rounded once for 2^-100 < |x| < 2^100. Beyond +-2000 every such x is 0 or
 * infinite. */
XENT_INLINE vec scale_by(vec x, vec exponent) {
    const vec e = f64_max(number(-2000), minimum(exponent, number(2000)));
    const vec half = nearest(f64_mul(e, number(0.5)));
    return f64_mul(f64_mul(x, power_of_two(half)), power_of_two(f64_sub(e, half)));
}

/* c[0] + c[1] x + c[2] x^2 + ... */
XENT_INLINE vec polynomial(const double *c, int terms, vec x) {
    vec sum = number(c[terms - 1]);
#pragma GCC unroll 8
    for (int k = terms - 2; k >= 0; k--) {
        sum = f64_fma(sum, x, number(c[k]));
    }
    return sum;
}

#define POLYNOMIAL(c, x) polynomial(c, sizeof(c) / sizeof(c)[0], x)

/* e^(x.high + x.low) for |x| < 2^15. */
XENT_INLINE struct scaled exp_scaled(struct pair x, bool single) {
    const vec n = nearest(f64_mul(x.high, number(f64_LOG2_E))), one = number(1);
    if (single) {
        const vec r = f64_fnma(n, number(LN2), x.high);
        const vec p = f64_fma(f64_mul(r, r), POLYNOMIAL(exp_poly_for_float, r), r);
        return (struct scaled){{f64_add(one, p), number(0)}, n, r};
    }
    struct f64_reduced reduced = f64_reduce_by(x.high, n);
    reduced.correction = f64_sub(reduced.correction, x.low);
    const vec t = f64_exp_tail(&reduced);
    struct pair value = {f64_add(one, f64_add(reduced.r, t)), number(0)};
    value.low = f64_add(f64_add(f64_sub(one, value.high), reduced.r), t);
    return (struct scaled){value, n, f64_sub(reduced.r, reduced.correction)};
}

/* ln(1 + x) = of_fraction + exponent * ln 2, and fraction = (1 + x) / 2^exponent; for x > -1. */
struct logarithm {
    vec of_fraction, exponent;
    struct pair fraction;
};

XENT_INLINE struct logarithm log_one_plus(struct pair x, bool single) {
    const vec one = number(1), half = number(0.5);
    const vec u = f64_add(one, x.high);
    vec lost = number(0);
    if (!single) { /* what the addition has lost, from the smaller of the two, and the low part */
        lost = f64_less(magnitude(x.high), one, f64_sub(x.high, f64_sub(u, one)),
                        f64_sub(one, f64_sub(u, x.high)));
        lost = f64_add(lost, x.low);
    }
    const vec m = f64_mantissa(u), sqrt2 = number(SQRT2);
    const vec f = f64_less(sqrt2, m, f64_mul(m, half), m);
    const vec e = f64_add(f64_exponent(u), f64_less(sqrt2, m, one, number(0)));

    /* Where the exponent is zero, x itself is known better than u - 1. */
    const vec away = single ? e : magnitude(e); /* of float x >= 0 */
    const vec g = f64_less(away, half, x.high, f64_sub(f, one));
    const vec s = f64_div(g, f64_add(number(2), g)), z = f64_mul(s, s);
    if (single) {
        const vec tail = f64_mul(f64_mul(s, z), POLYNOMIAL(log_poly_for_float, z));
        return (struct logarithm){f64_add(f64_add(s, s), tail), e, {f, number(0)}};
    }
    const vec correction = f64_div(f64_less(away, half, x.low, lost), u);
    /* 2 s = g - s g = g - (g^2 / 2 - s g^2 / 2): the rounding of s weighs less so. */
    const vec half_square = f64_mul(f64_mul(half, g), g);
    const vec tail = f64_fma(s, f64_fma(POLYNOMIAL(log_poly, z), z, half_square), correction);
    const vec of_fraction = f64_sub(g, f64_sub(half_square, tail));
    const vec scale = power_of_two(f64_sub(number(0), f64_less(e, number(1000), e, number(1000))));
    return (struct logarithm){of_fraction, e, {f, f64_mul(lost, scale)}};
}

/* exponent * ln 2 + shift + rest, of which the large terms may cancel: ln 2 is in two parts, and
 * the first times the exponent is exact. */
XENT_INLINE vec in_nats(vec exponent, vec shift, vec rest, bool single) {
    if (single) {
        return f64_add(shift, f64_fma(exponent, number(LN2), rest));
    }
    return f64_add(f64_fma(exponent, number(f64_LN2_HIGH), shift),
                   f64_fma(exponent, number(f64_LN2_LOW), rest));
}

/* e^x, or about that where x is further out than so many nats. */
XENT_INLINE struct scaled exp_within(vec least, struct pair x, vec most, bool single) {
    const vec near = f64_max(least, minimum(x.high, most)); /* keeps a NaN */
    if (single) {
        return exp_scaled((struct pair){near, number(0)}, true);
    }
    const vec clamped =
        f64_less(magnitude(f64_sub(near, x.high)), number(DBL_MIN), x.low, number(0));
    return exp_scaled((struct pair){near, clamped}, single);
}

/* Zero times infinity is zero; a coefficient that is NaN stays so. */
XENT_INLINE vec weighed(vec coefficient, vec x) {
    const vec size = magnitude(coefficient);
    return f64_less(number(0), size, f64_mul(coefficient, x), size);
}

/* z_c for a logit, and the distance of a shift from it. */
XENT_INLINE vec scaled_logit(const struct xent_rows *rows, size_t i,
                             const struct xent_request *request) {
    const vec logit = f64_load(rows->target_logit + i);
    return request->options ? f64_mul(logit, number(request->scale)) : logit;
}

XENT_INLINE struct pair distance_from(const struct xent_rows *rows, size_t i, vec shift,
                                      const struct xent_request *request) {
    struct pair distance = subtract(shift, f64_load(rows->target_logit + i), request->single);
    if (request->options) {
        distance.low = f64_sub(distance.low, f64_load(rows->target_low + i));
        if (request->single) {
            distance.high = f64_add(distance.high, distance.low);
            distance.low = number(0);
        }
        distance =
            multiply(distance, (struct pair){number(request->scale), number(0)}, request->single);
        distance.low = is_number_else(distance.low, number(0));
    }
    return distance;
}

/* What the loss and A are beyond those of one class with the coefficient 1. */
XENT_INLINE vec loss_with_options(const struct xent_rows *rows, size_t i, vec loss, vec lse,
                                  const struct xent_request *request) {
    const vec scale = number(request->scale), rest = f64_load(rows->rest + i);
    const vec top = f64_load(rows->top + i), spread = f64_load(rows->spread + i);
    /* lse - top is no less than zero. Where no number comes of the target, it is at -inf. */
    const vec target =
        f64_add(f64_sub(f64_load(rows->target_logit + i), top), f64_load(rows->target_low + i));
    vec above = f64_fma(target, scale, loss);
    above = is_number_else(above, f64_sub(lse, f64_mul(top, scale)));
    above = f64_max(number(0), above); /* what cancels may be less; keeps a NaN */
    const vec others = f64_add(weighed(rest, above), weighed(spread, scale));
    const vec square = weighed(f64_load(rows->square + i), f64_mul(lse, lse));
    return f64_add(f64_add(weighed(f64_load(rows->own + i), loss), others), square);
}

/* The row's scale for an upstream gradient of 1, in units of 1 / U, and q_c. */
struct unit_scale {
    struct scaled value;
    struct pair target;
    vec target_exponent;
};

/* q_c and 1 - q_c. */
struct shares {
    vec of_target, of_others;
};

XENT_INLINE struct shares shares_of(struct pair others, struct unit_scale unit, bool single) {
    const struct pair rate = multiply(others, unit.value.value, single);
    const vec low = is_number_else(rate.low, number(0));
    return (struct shares){
        .of_target = scale_by(f64_add(unit.target.high, unit.target.low), unit.target_exponent),
        .of_others = scale_by(f64_add(rate.high, low), unit.value.exponent),
    };
}

/* Of rows with options: the scale by all that a term is multiplied by, and the gradient at the
 * target. */
XENT_INLINE void store_scale_with_options(struct xent_rows *rows, size_t i, struct pair others,
                                          struct unit_scale unit, vec lse, vec poison,
                                          bool single) {
    const vec own = f64_load(rows->own + i), rest = f64_load(rows->rest + i);
    const vec upstream = f64_load(rows->upstream + i);
    const vec square = weighed(f64_load(rows->square + i), f64_mul(number(2), lse));
    const struct pair all = subtract(f64_add(own, rest), negative(square), single);
    const struct pair by = multiply(all, (struct pair){upstream, number(0)}, single);
    const struct pair scale = multiply(by, unit.value.value, single);
    f64_store(rows->scale + i, f64_add(scale.high, poison));
    f64_store(rows->scale_low + i, is_number_else(scale.low, number(0)));
    f64_store(rows->scale_exponent + i, unit.value.exponent);

    const struct shares q = shares_of(others, unit, single);
    const vec gradient =
        f64_sub(weighed(f64_add(rest, square), q.of_target), weighed(own, q.of_others));
    const vec slope = f64_load(rows->target_slope + i);
    f64_store(rows->target_gradient + i,
              f64_add(f64_mul(f64_mul(upstream, slope), gradient), poison));
}

/* What second derivatives are made of: q_j and, at the target, 1 - q_j. */
XENT_INLINE void store_shares(struct xent_rows *rows, size_t i, struct pair others,
                              struct unit_scale unit, vec poison, bool single) {
    f64_store(rows->unit + i, f64_add(unit.value.value.high, poison));
    f64_store(rows->unit_low + i, is_number_else(unit.value.value.low, number(0)));
    f64_store(rows->unit_exponent + i, unit.value.exponent);
    const struct shares q = shares_of(others, unit, single);
    f64_store(rows->share + i, f64_add(q.of_target, poison));
    f64_store(rows->share_of_others + i, f64_add(q.of_others, poison));
}

/* The row's scale in units of 1 / U, and its gradient at the target. */
XENT_INLINE void store_scale(struct xent_rows *rows, size_t i, struct pair others,
                             struct scaled scale, vec poison, bool single, bool usual) {
    f64_store(rows->scale + i, usual ? scale.value.high : f64_add(scale.value.high, poison));
    f64_store(rows->scale_low + i, scale.value.low);
    f64_store(rows->scale_exponent + i, scale.exponent);
    const struct pair product = multiply(others, scale.value, single);
    if (single && usual) { /* what is no normal number of double is zero as a float */
        const vec gradient = scale_directly(product.high, scale.exponent);
        f64_store(rows->target_gradient + i, negative(gradient));
        return;
    }
    const vec low = is_number_else(product.low, number(0)); /* none beside an infinity */
    const vec gradient = scale_by(f64_add(product.high, low), scale.exponent);
    f64_store(rows->target_gradient + i, f64_add(negative(gradient), poison));
}

/* Whether eight rows all have other classes than the target, and none of these so far from it that
 * an exponent is at its end: then nothing has to be chosen below. */
XENT_INLINE bool are_usual(const struct xent_rows *rows, size_t i,
                           const struct xent_request *request) {
    const double far = 500;
    const vec others = f64_load(rows->others + i), zero = number(0), one = number(1);
    const vec distance = distance_from(rows, i, f64_load(rows->shift + i), request).high;
    const vec away = magnitude(f64_fma(f64_load(rows->exponent + i), number(LN2), distance));
    const vec strange = f64_less(zero, others, f64_less(away, number(far), zero, one), one);
    return !f64_any_less(zero, strange);
}

/* `usual`: see are_usual. */
XENT_INLINE void finish_vector(struct xent_rows *rows, size_t i, const struct xent_request *request,
                               bool usual) {
    const bool single = request->single;
    const struct pair others = {f64_load(rows->others + i), f64_load(rows->others_low + i)};
    const struct pair upstream = {f64_load(rows->upstream + i), number(0)};
    const vec unit = f64_load(rows->exponent + i), logit = f64_load(rows->target_logit + i);
    vec shift = f64_load(rows->shift + i);
    if (!usual) { /* without others any unit will do: one that the target is not far from */
        shift = f64_less(number(0), others.high, shift, is_number_else(logit, number(0)));
    }

    const struct pair distance = distance_from(rows, i, shift, request);
    const vec z_shift = request->options ? f64_mul(shift, number(request->scale)) : shift;
    struct scaled inverse; /* e^shift / e_c */
    vec least = number(0), far = number(0);
    if (usual) {
        inverse = exp_scaled(distance, single);
    } else {
        /* From `most` on, ratio is so large that 1 + ratio is ratio; before `least` it underflows.
         */
        const vec zero = f64_mul(unit, number(-LN2)), most = f64_add(zero, number(600));
        least = f64_add(zero, number(-1000));
        inverse = exp_within(least, distance, most, single);
        /* A power of two there, so that the target does not round what does not depend on it. */
        far = f64_less(most, distance.high, number(1), number(0));
        inverse.value.high = f64_less(number(0), far, number(1), inverse.value.high);
        inverse.value.low = f64_less(number(0), far, number(0), inverse.value.low);
        inverse.rest = f64_less(number(0), far, number(0), inverse.rest);
    }

    const vec exponent = f64_add(unit, inverse.exponent);
    struct pair ratio = multiply(others, inverse.value, single);
    vec poison = number(0); /* NaN where ratio is, else zero */
    if (usual) {
        ratio.high = scale_directly(ratio.high, exponent);
        ratio.low = scale_directly(ratio.low, exponent);
    } else {
        /* A row of nothing but -inf, and a target of +inf, are made NaN; others are NaN already. */
        const vec infinite = f64_mul(number(0), f64_max(logit, number(0)));
        const vec empty = f64_less(logit, number(-DBL_MAX), number(NAN), infinite);
        ratio.high = f64_add(scale_by(ratio.high, exponent),
                             f64_less(number(0), others.high, infinite, empty));
        ratio.low = single ? number(0) : scale_by(ratio.low, exponent);
        poison = f64_sub(ratio.high, ratio.high);
    }
    const struct logarithm log = log_one_plus(ratio, single);

    /* The integers first, for they may cancel. */
    const vec powers = f64_sub(log.exponent, inverse.exponent);
    const vec rest = f64_sub(log.of_fraction, inverse.rest);
    vec lse = number(0);
    if (request->lse) {
        lse = in_nats(powers, z_shift, rest, single);
        lse = usual ? lse : f64_less(distance.high, least, scaled_logit(rows, i, request), lse);
        f64_store(rows->lse + i, usual ? lse : f64_add(lse, poison));
    }
    vec loss = in_nats(log.exponent, number(0), log.of_fraction, single);
    if (!usual) {
        loss = f64_less(number(0), far, in_nats(powers, distance.high, rest, single), loss);
    }
    const bool given = request->by == XENT_BY_GIVEN_LSE, bends = request->by == XENT_FOR_SECOND;
    if (given) {
        lse = f64_load(rows->lse_in + i);
    }
    if (request->options) {
        loss = loss_with_options(rows, i, loss, lse, request);
    }
    f64_store(rows->loss + i, usual ? loss : f64_add(loss, poison));

    if (request->by == XENT_NO_SCALE) {
        return;
    }
    struct scaled scale;
    const struct pair one = {number(1), number(0)};
    const struct pair by = request->options || bends ? one : upstream;
    const vec huge = number(40000); /* beyond it everything is 0 or infinite */
    if (given) {
        const struct pair x = subtract(z_shift, lse, single);
        scale = exp_within(negative(huge), x, huge, single);
        scale.value = multiply(by, scale.value, single);
        scale.exponent = f64_add(scale.exponent, unit);
    } else {
        scale.value = divide(multiply(by, inverse.value, single), log.fraction, single);
        scale.exponent = f64_sub(exponent, log.exponent);
    }
    if (!request->options && !bends) {
        store_scale(rows, i, others, scale, poison, single, usual && !given);
        return;
    }
    struct unit_scale of_one = {scale, one, number(0)};
    if (given) {
        const struct pair x = subtract(scaled_logit(rows, i, request), lse, single);
        const struct scaled q = exp_within(negative(huge), x, huge, single);
        of_one.target = q.value;
        of_one.target_exponent = q.exponent;
    } else {
        of_one.target = divide(one, log.fraction, single);
        of_one.target_exponent = negative(log.exponent);
    }
    /* There is nothing at a target of -inf. */
    of_one.target.high = f64_less(logit, number(-DBL_MAX), number(0), of_one.target.high);
    of_one.target.low = f64_less(logit, number(-DBL_MAX), number(0), of_one.target.low);
    if (bends) {
        store_shares(rows, i, others, of_one, poison, single);
    }
    if (request->options) {
        store_scale_with_options(rows, i, others, of_one, lse, poison, single);
    }
}

/* Each case is inlined with its constants. */
#define FINISH_ALL(by, single, options)                                                            \
    {                                                                                              \
        const struct xent_request known = {by, single, options, request->lse, request->scale};     \
        for (size_t i = 0; i < count; i += f64_LANES) {                                            \
            if (are_usual(rows, i, &known)) {                                                      \
                finish_vector(rows, i, &known, true);                                              \
            } else {                                                                               \
                finish_vector(rows, i, &known, false);                                             \
            }                                                                                      \
        }                                                                                          \
    }
#define FINISH_EACH(by)                                                                            \
    if (request->options) {                                                                        \
        if (request->single) {                                                                     \
            FINISH_ALL(by, true, true)                                                             \
        } else {                                                                                   \
            FINISH_ALL(by, false, true)                                                            \
        }                                                                                          \
    } else if (request->single) {                                                                  \
        FINISH_ALL(by, true, false)                                                                \
    } else {                                                                                       \
        FINISH_ALL(by, false, false)                                                               \
    }

static void finish(struct xent_rows *rows, size_t count, const struct xent_request *request) {
    switch (request->by) {
    case XENT_NO_SCALE:
        FINISH_EACH(XENT_NO_SCALE)
        break;
    case XENT_BY_OWN_SUM:
        FINISH_EACH(XENT_BY_OWN_SUM)
        break;
    case XENT_BY_GIVEN_LSE:
        FINISH_EACH(XENT_BY_GIVEN_LSE)
        break;
    case XENT_FOR_SECOND:
        FINISH_EACH(XENT_FOR_SECOND)
        break;
    }
}
#undef FINISH_EACH
#undef FINISH_ALL

/* With m the largest class, -ln q_j = loss_m + (z_m - z_j), so that no term is negative:
 *
 *     -sum q ln q = loss_m + sum_{j != m} e^(z_j - z_m) (z_m - z_j) * e^-loss_m */
static void entropies(struct xent_rows *rows, size_t count, const struct xent_request *request) {
    const bool single = request->single;
    const vec far = number(30000); /* beyond it everything is zero */
    for (size_t i = 0; i < count; i += f64_LANES) {
        const vec loss = f64_load(rows->loss + i), below = f64_load(rows->below + i);
        const vec shift = f64_load(rows->below_shift + i);
        const struct pair distance = distance_from(rows, i, shift, request);
        const struct scaled unit = exp_within(negative(far), distance, far, single);
        const struct scaled q = exp_scaled((struct pair){negative(loss), number(0)}, single);
        const vec exponent =
            f64_add(f64_add(unit.exponent, q.exponent), f64_load(rows->below_exponent + i));
        const vec value = f64_mul(f64_mul(below, unit.value.high), q.value.high);
        f64_store(rows->entropy + i, f64_add(loss, scale_by(value, exponent)));
    }
}

/* ln of sums as in struct xent_near_one. */
XENT_INLINE vec logs_near_one(vec ones, struct pair beside) {
    const vec unit = number(1 / f64_ONE_WITH_HEADROOM), one = number(1);
    struct pair excess = subtract(f64_sub(ones, one), negative(f64_mul(beside.high, unit)), false);
    excess.low = f64_add(excess.low, f64_mul(beside.low, unit));
    const struct logarithm log = log_one_plus(excess, false);
    return in_nats(log.exponent, number(0), log.of_fraction, false);
}

static double log_near_one(const struct xent_near_one *sum) {
    const struct pair beside = {number(sum->beside.high), number(sum->beside.low)};
    return first(logs_near_one(number(sum->ones), beside));
}

/* ---- What exponentials are multiplied by -------------------------------------------------------
 */

/* Whether all are from `least` to `most`. */
XENT_INLINE bool are_amid(vec integers, double least, double most) {
    const vec away = f64_sub(integers, number((least + most) / 2));
    return !f64_any_less(number((most - least) / 2), magnitude(away));
}

/* Of single ones `low` is what a float does not hold of `high`. */
XENT_INLINE void store_factors(struct xent_factors *factors, size_t i, vec high, vec low, vec post,
                               bool single) {
    if (single) {
        float floats[f64_LANES];
        f64_to_floats(floats, high);
        const vec rounded = f64_of_floats(floats);
        low = f64_sub(high, rounded);
        high = rounded;
    }
    f64_store(factors->high + i, high);
    f64_store(factors->low + i, is_number_else(low, number(0))); /* none beside an infinity */
    f64_store(factors->post + i, post);
}

/* (value * 2^exponent) as a factor of exponentials, of which one is ONE_WITH_HEADROOM.
 *
 * Away from the ends of the exponents, `high` and `low` are normal numbers. There `post` is a unit
 * of one's last place, so that what `low` adds to a result is not rounded as a subnormal number
 * would be; of factors above its inverse, no product is so small, and it is one. Else `high` is in
 * [1, 2), so that its product with the smallest exponential is normal, and the rest of the exponent
 * goes to `post` as far as that is a normal number of its own. */
XENT_INLINE void factor_vector(struct pair value, vec exponent, bool single,
                               struct xent_factors *factors, size_t i) {
    const double smallest = single ? FLT_MIN_EXP - 1 : DBL_MIN_EXP - 1;
    const double largest = single ? FLT_MAX_EXP - 1 : DBL_MAX_EXP - 1;
    const double digits = single ? FLT_MANT_DIG : DBL_MANT_DIG;
    exponent = f64_sub(exponent, number(single ? f32_HEADROOM : f64_HEADROOM));
    if (single) {
        const vec one = number(0x1p64 / f32_ONE_WITH_HEADROOM);
        value = (struct pair){f64_mul(value.high, one), f64_mul(value.low, one)};
    }
    const vec own =
        f64_less(number(0), magnitude(value.high), f64_exponent(value.high), negative(exponent));
    const vec total = f64_add(own, exponent);
    if (are_amid(total, digits - largest + 1, digits - 1) && are_amid(exponent, -900, 900)) {
        /* nearly always: then nothing is at an end */
        const vec power = power_of_two(f64_add(exponent, number(digits)));
        store_factors(factors, i, f64_mul(value.high, power), f64_mul(value.low, power),
                      power_of_two(number(-digits)), single);
        return;
    }
    const vec clamped = f64_max(number(smallest), minimum(total, number(largest)));
    const vec usual = f64_less(total, number(digits), number(-digits), number(0));
    const vec post = f64_less(magnitude(total), number(largest - digits), usual, clamped);
    const vec rest = f64_sub(exponent, post);
    store_factors(factors, i, scale_by(value.high, rest), scale_by(value.low, rest),
                  power_of_two(post), single);
}

/* scale * (a - b), no less than -30000: where it would be, what rounding lost of it may be more
 * than that, and is left out. */
XENT_INLINE struct pair scaled_difference(double a, double b, double scale, bool single) {
    struct pair x = subtract(number(a), number(b), single);
    if (scale != 1) {
        x = multiply(x, (struct pair){number(scale), number(0)}, single);
    }
    const vec least = number(-30000);
    x.low = f64_less(x.high, least, number(0), x.low);
    x.high = f64_max(least, x.high);
    return x;
}

/* The scale of a block's terms is that of the row's, `value`, in the block's units. A sum of zero
 * has none, nor terms but zeros: the row's will do, of which the scale is not infinite. */
struct block_scale {
    struct pair value;
    vec exponent;
};

XENT_INLINE struct xent_sum in_some_unit(const struct xent_sum *block, const struct xent_rows *rows,
                                         size_t row) {
    struct xent_sum sum = *block;
    sum.exponent = block->sum == 0 ? rows->exponent[row] : block->exponent;
    sum.shift = block->sum == 0 ? rows->shift[row] : block->shift;
    return sum;
}

XENT_INLINE struct block_scale scale_of_block(struct pair value, double exponent,
                                              const struct xent_rows *rows, size_t row,
                                              const struct xent_sum *block,
                                              const struct xent_request *request) {
    const bool single = request->single;
    const struct xent_sum sum = in_some_unit(block, rows, row);
    struct block_scale scale = {value, number(exponent - rows->exponent[row] + sum.exponent)};
    if (sum.shift != rows->shift[row]) { /* rare */
        const struct pair x =
            scaled_difference(sum.shift, rows->shift[row], request->scale, single);
        const struct scaled e = exp_scaled(x, single);
        scale.value = multiply(scale.value, e.value, single);
        scale.exponent = f64_add(scale.exponent, e.exponent);
    }
    return scale;
}

XENT_INLINE struct xent_factor factor_of_block(struct block_scale scale, bool single) {
    struct xent_factors factors;
    factor_vector(scale.value, scale.exponent, single, &factors, 0);
    return (struct xent_factor){factors.high[0], factors.low[0], factors.post[0]};
}

/* The factors of a vector of blocks in the row's own units but for the exponent. */
XENT_INLINE void factors_alike(struct pair scale, const double *exponents, size_t count,
                               bool single, struct xent_factor *factors) {
    struct xent_factors all;
    factor_vector(scale, f64_load(exponents), single, &all, 0);
    for (size_t i = 0; i < count; i++) {
        factors[i] = (struct xent_factor){all.high[i], all.low[i], all.post[i]};
    }
}

static void block_factors(const struct xent_rows *rows, size_t row, const struct xent_sum *blocks,
                          size_t count, const struct xent_request *request,
                          struct xent_factor *factors) {
    const struct pair scale = {number(rows->scale[row]), number(rows->scale_low[row])};
    const double base = rows->scale_exponent[row] - rows->exponent[row];
    for (size_t i = 0; i < count; i += f64_LANES) {
        const size_t n = count - i < f64_LANES ? count - i : f64_LANES;
        double exponents[f64_LANES] = {0};
        bool alike = true;
        for (size_t k = 0; k < n; k++) {
            const struct xent_sum sum = in_some_unit(&blocks[i + k], rows, row);
            exponents[k] = base + sum.exponent;
            alike &= sum.shift == rows->shift[row];
        }
        if (alike) {
            factors_alike(scale, exponents, n, request->single, factors + i);
            continue;
        }
        for (size_t k = 0; k < n; k++) {
            factors[i + k] = factor_of_block(scale_of_block(scale, rows->scale_exponent[row], rows,
                                                            row, &blocks[i + k], request),
                                             request->single);
        }
    }
}

static struct xent_factor share_factor(const struct xent_rows *rows, size_t row, double by,
                                       const struct xent_sum *block,
                                       const struct xent_request *request) {
    const struct pair unit = {number(rows->unit[row]), number(rows->unit_low[row])};
    const struct pair scale = multiply(unit, (struct pair){number(by), number(0)}, request->single);
    return factor_of_block(
        scale_of_block(scale, rows->unit_exponent[row], rows, row, block, request),
        request->single);
}

static double scaled_share(const struct xent_rows *rows, size_t row, const struct xent_sum *block,
                           const struct xent_request *request) {
    const struct pair value = {number(rows->scale[row]), number(rows->scale_low[row])};
    const struct block_scale scale =
        scale_of_block(value, rows->scale_exponent[row], rows, row, block, request);
    return first(scale_by(f64_add(scale.value.high, scale.value.low), scale.exponent));
}

static double share(const struct xent_rows *rows, size_t row, const struct xent_sum *block,
                    const struct xent_request *request) {
    const struct pair unit = {number(rows->unit[row]), number(rows->unit_low[row])};
    const struct block_scale scale =
        scale_of_block(unit, rows->unit_exponent[row], rows, row, block, request);
    return first(scale_by(f64_add(scale.value.high, scale.value.low), scale.exponent));
}

static void share_factors(const struct xent_rows *rows, size_t count, const double *by, bool single,
                          struct xent_factors *factors) {
    for (size_t i = 0; i < count; i += f64_LANES) {
        const struct pair unit = {f64_load(rows->unit + i), f64_load(rows->unit_low + i)};
        const struct pair scale =
            multiply(unit, (struct pair){f64_load(by + i), number(0)}, single);
        factor_vector(scale, f64_load(rows->unit_exponent + i), single, factors, i);
    }
}

static void factors(const struct xent_rows *rows, size_t count, bool single,
                    struct xent_factors *factors) {
    for (size_t i = 0; i < count; i += f64_LANES) {
        const struct pair scale = {f64_load(rows->scale + i), f64_load(rows->scale_low + i)};
        factor_vector(scale, f64_load(rows->scale_exponent + i), single, factors, i);
    }
}

/* ---- Sums --------------------------------------------------------------------------------------
 */

XENT_INLINE double ln_size(const struct xent_sum *s, double scale) {
    return (s->exponent + first(f64_exponent(number(s->sum)))) * LN2 + s->shift * scale;
}

/* The sum in other units. */
XENT_INLINE struct two in_units(const struct xent_sum *s, double exponent, double shift,
                                double scale) {
    struct pair value = {number(s->sum), number(s->low)};
    vec by = number(s->exponent - exponent);
    if (s->shift != shift) {
        const struct pair x = scaled_difference(s->shift, shift, scale, false);
        const struct scaled e = exp_scaled(x, false);
        value = multiply(value, e.value, false);
        by = f64_add(by, e.exponent);
    }
    return (struct two){first(scale_by(value.high, by)), first(scale_by(value.low, by))};
}

static struct xent_sum merge(const struct xent_sum *blocks, size_t count, double scale) {
    struct xent_sum row = blocks[0];
    if (count == 1) {
        return row;
    }
    double size = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        if (blocks[i].sum > 0 && ln_size(&blocks[i], scale) > size) {
            size = ln_size(&blocks[i], scale);
            row = blocks[i];
        }
    }
    struct two sum = {0, 0};
    for (size_t i = 0; i < count; i++) {
        if (blocks[i].sum != 0) {
            sum = add_two(sum, in_units(&blocks[i], row.exponent, row.shift, scale));
        }
    }
    row.sum = sum.high + sum.low;
    row.low = (sum.high - row.sum) + sum.low;
    return row;
}

/* Each lane adds every eighth number and carries the rounding errors; the order depends on n alone.
 */
static struct two add_up(const double *values, size_t n, double unit) {
    vec high = number(0), low = number(0);
    size_t i = 0;
    for (; i + f64_LANES <= n; i += f64_LANES) {
        const vec x = f64_mul(f64_load(values + i), number(unit));
        const vec sum = f64_add(high, x), back = f64_sub(sum, high);
        low = f64_add(low, f64_add(f64_sub(high, f64_sub(sum, back)), f64_sub(x, back)));
        high = sum;
    }
    double highs[f64_LANES], lows[f64_LANES];
    f64_store(highs, high);
    f64_store(lows, low);
    struct two sum = {0, 0};
    double plain = 0; /* what an infinity leaves of the sum with errors is NaN */
    for (size_t k = 0; k < f64_LANES; k++) {
        sum = add_two(sum, (struct two){highs[k], lows[k]});
        plain += highs[k];
    }
    for (; i < n; i++) {
        sum = add_two(sum, (struct two){values[i] * unit, 0});
        plain += values[i] * unit;
    }
    return plain - plain == 0 ? sum : (struct two){plain, 0};
}
