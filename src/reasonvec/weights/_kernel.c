/* The inner loops of `kernel.py` for bfloat16, which NumPy makes in several passes and C in one.
 *
 * Every function here has a NumPy twin in `kernel.py` that gives the same bits; the tests hold the two together, and
 * the package works without this file, slower. Nothing here raises for the numbers it meets, or knows of files.
 * Compiled with -ffp-contract=off: a fused multiply-add would round once where NumPy rounds twice.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
/* one binary for all processors: the loader picks the widest instructions that this one has */
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDE
#endif

#define LANES 16 /* sums run in this many lanes, added up in order at the end: the same on every machine */

#define PIECE 1024 /* entries whose intermediate values stay in the first-level cache; a multiple of LANES */

enum { NOT_FINITE_FIRST = 1, NOT_FINITE_SECOND = 2, INEXACT = 4 };
enum { LITERAL = 254, WIDE_ENTRY = 255, PALETTE = 254, SKIP = 255 };

static inline float widen(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

static inline uint32_t bits_of(float value) {
    uint32_t word;
    memcpy(&word, &value, 4);
    return word;
}

/* To nearest even. Infinity and NaN are found by their exponent before the result is used. */
static inline uint16_t round_to_bfloat16(float value) {
    uint32_t word = bits_of(value);
    return (uint16_t)((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
}

static double total(const double *lanes) {
    double sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    return sum;
}

/* lanes += a * b, entry by entry; products of float32 numbers are exact in double */
static inline void add_products(const float *restrict a, const float *restrict b, Py_ssize_t count,
                                double *restrict lanes) {
    Py_ssize_t whole = count - count % LANES;
    for (Py_ssize_t start = 0; start < whole; start += LANES)
        for (int lane = 0; lane < LANES; lane++) lanes[lane] += (double)a[start + lane] * (double)b[start + lane];
    for (Py_ssize_t i = whole; i < count; i++) lanes[i - whole] += (double)a[i] * (double)b[i];
}

/* out = weight + change, change = alpha * delta in float32; asked += change^2, realised += (out - weight) * change. */
#define ADD(NAME, TYPE, LOAD)                                                                                          \
    WIDE static int NAME(const uint16_t *restrict weight, const TYPE *restrict delta, float alpha,                     \
                         uint16_t *restrict out, Py_ssize_t count, double *restrict asked, double *restrict realised) {\
        uint32_t odd = 0;                                                                                              \
        float change[PIECE], moved[PIECE];                                                                             \
        for (Py_ssize_t start = 0; start < count; start += PIECE) {                                                    \
            Py_ssize_t most = count - start < PIECE ? count - start : PIECE;                                           \
            for (Py_ssize_t i = 0; i < most; i++) {                                                                    \
                uint16_t before = weight[start + i];                                                                   \
                float step = LOAD(delta[start + i]) * alpha;                                                           \
                float sum = widen(before) + step;                                                                      \
                uint16_t after = step == 0 ? before : round_to_bfloat16(sum);                                          \
                out[start + i] = after;                                                                                \
                odd |= ((bits_of(sum) & 0x7f800000u) == 0x7f800000u) | ((after & 0x7f80u) == 0x7f80u);                 \
                change[i] = step;                                                                                      \
                moved[i] = widen(after) - widen(before);                                                               \
            }                                                                                                          \
            add_products(change, change, most, asked);                                                                 \
            add_products(moved, change, most, realised);                                                               \
        }                                                                                                              \
        return odd != 0;                                                                                               \
    }

#define AS_IT_IS(value) (value)
ADD(add_float32, float, AS_IT_IS)
ADD(add_bfloat16, uint16_t, widen)

/* Word `counter` of the random stream `key`: SplitMix64 (Steele, Lea, Flood 2014) as a function of its counter. */
static inline uint64_t random_word(uint64_t key, uint64_t counter) {
    uint64_t z = (counter + 1) * 0x9E3779B97F4A7C15u + key;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* To nearest even by way of float32 rounded to odd, so that rounding twice is rounding once (Boldo, Melquiond 2008). */
static inline uint16_t round_double_to_bfloat16(double value) {
    float brief = (float)value;
    uint32_t word = bits_of(brief);
    if ((double)brief != value) {
        double size = brief < 0 ? -(double)brief : (double)brief;
        word -= size > (value < 0 ? -value : value);
        word |= 1;
    }
    return (uint16_t)((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
}

/* The next bfloat16 above (up) or below. */
static inline uint16_t neighbour(uint16_t bits, int up) {
    if (!(bits & 0x7fffu)) return up ? 0x0001 : 0x8001;
    return (uint16_t)(bits + ((bits >> 15) == (uint16_t)!up ? 1 : -1));
}

/* The same sum in double, rounded up or down at random with the probability that makes its mean the sum. `start`, even,
 * is the number of the first entry in its tensor: entry i has lane i of the stream `key`. */
static int add_at_random(const uint16_t *weight, const void *delta, int is_long, double alpha, uint16_t *out,
                         Py_ssize_t count, uint64_t key, uint64_t start, double *asked, double *realised) {
    int odd = 0;
    uint64_t word = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i % 2 == 0) word = random_word(key, (start + (uint64_t)i) / 2);
        uint32_t lot = i % 2 == 0 ? (uint32_t)word : (uint32_t)(word >> 32);
        double before = widen(weight[i]);
        double change = (is_long ? ((const float *)delta)[i] : widen(((const uint16_t *)delta)[i])) * alpha;
        double sum = before + change;
        uint16_t after = weight[i];
        if (change != 0) {
            after = round_double_to_bfloat16(sum);
            double error = sum - widen(after);
            uint16_t other = neighbour(after, error > 0);
            double step = (double)widen(other) - widen(after);
            if (error != 0 && lot < error / step * 4294967296.0) after = other;
        }
        odd |= (after & 0x7f80u) == 0x7f80u;
        out[i] = after;
        asked[i % LANES] += change * change;
        realised[i % LANES] += (widen(after) - before) * change;
    }
    return odd;
}

/* out = tuned - base in float32, +0 where they are equal; the flags say what the caller has to look at again. */
WIDE static int subtract(const uint16_t *restrict tuned, const uint16_t *restrict base, float *restrict out,
                         Py_ssize_t count) {
    uint32_t first = 0, second = 0, inexact = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        float a = widen(tuned[i]), b = widen(base[i]);
        float difference = a - b;
        float of_b = difference - a; /* TwoSum: what rounding took from the difference */
        float rest = (a - (difference - of_b)) + (-b - of_b);
        first |= (tuned[i] & 0x7f80u) == 0x7f80u;
        second |= (base[i] & 0x7f80u) == 0x7f80u;
        inexact |= (rest != 0) | ((bits_of(difference) & 0x7f800000u) == 0x7f800000u);
        out[i] = difference == 0 ? 0.0f : difference;
    }
    return (first ? NOT_FINITE_FIRST : 0) | (second ? NOT_FINITE_SECOND : 0) | (inexact ? INEXACT : 0);
}

static inline int32_t rank(uint16_t bits) { return bits & 0x8000 ? 0x8000 - (int32_t)bits : (int32_t)bits; }

/* The positions of what is not zero, without a branch that a processor could guess wrong. */
static inline Py_ssize_t positions(const uint32_t *restrict values, Py_ssize_t count, uint16_t *restrict where) {
    Py_ssize_t found = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        where[found] = (uint16_t)i;
        found += values[i] != 0;
    }
    return found;
}

/* What `extract` counts: squares of the base and of the difference, and steps along the representable numbers. */
WIDE static Py_ssize_t survey(const uint16_t *restrict tuned, const uint16_t *restrict base,
                              const float *restrict difference, Py_ssize_t count, double *restrict of_base,
                              double *restrict of_difference, int64_t *restrict bins) {
    Py_ssize_t changed = 0;
    for (Py_ssize_t start = 0; start < count; start += PIECE) {
        Py_ssize_t most = count - start < PIECE ? count - start : PIECE;
        float weight[PIECE];
        uint32_t steps[PIECE];
        uint16_t where[PIECE + 1];
        for (Py_ssize_t i = 0; i < most; i++) {
            weight[i] = widen(base[start + i]);
            int32_t moved = rank(tuned[start + i]) - rank(base[start + i]);
            steps[i] = (uint32_t)(moved < 0 ? -moved : moved);
        }
        add_products(weight, weight, most, of_base);
        add_products(difference + start, difference + start, most, of_difference);
        Py_ssize_t found = positions(steps, most, where);
        for (Py_ssize_t i = 0; i < found; i++) {
            float length = (float)steps[where[i]]; /* its exponent is the number of bits, less one */
            uint32_t bin = (bits_of(length) >> 23) - 126;
            bins[bin < 9 ? bin : 9]++;
        }
        changed += found;
    }
    bins[0] = count - changed;
    return changed;
}

static Py_ssize_t compact(const float *restrict values, Py_ssize_t count, uint32_t *restrict where) {
    Py_ssize_t found = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        where[found] = (uint32_t)i;
        found += values[i] != 0;
    }
    return found;
}

/* The most frequent bfloat16 values among the entries that are not zero, of equals the lower bit pattern. `counts` has
 * 65,536 zeros and is left so. */
static int choose_palette(const float *values, const uint32_t *where, Py_ssize_t found, uint32_t *counts,
                          uint16_t *palette) {
    uint32_t seen[PALETTE];
    int length = 0;
    for (Py_ssize_t i = 0; i < found; i++) {
        uint32_t word = bits_of(values[where[i]]);
        counts[word >> 16] += !(word & 0xffffu);
    }
    for (uint32_t symbol = 0; symbol < 65536; symbol++) {
        uint32_t times = counts[symbol];
        if (!times) continue;
        counts[symbol] = 0;
        if (length == PALETTE && times <= seen[length - 1]) continue;
        int place = length < PALETTE ? length++ : length - 1;
        for (; place > 0 && seen[place - 1] < times; place--) {
            seen[place] = seen[place - 1];
            palette[place] = palette[place - 1];
        }
        seen[place] = times;
        palette[place] = (uint16_t)symbol;
    }
    return length;
}

static int ascending(const void *a, const void *b) {
    return (int)*(const uint16_t *)a - (int)*(const uint16_t *)b;
}

typedef struct {
    Py_ssize_t gaps, symbols, literals;
} Streams;

static Streams emit(const float *values, const uint32_t *where, Py_ssize_t found, const uint8_t *symbol_of,
                    uint8_t *gaps, uint8_t *symbols, float *literals) {
    Streams made = {0, found, 0};
    Py_ssize_t next = 0;
    for (Py_ssize_t i = 0; i < found; i++) {
        Py_ssize_t gap = (Py_ssize_t)where[i] - next;
        next = (Py_ssize_t)where[i] + 1;
        for (; gap >= SKIP; gap -= SKIP) gaps[made.gaps++] = SKIP;
        gaps[made.gaps++] = (uint8_t)gap;
        float value = values[where[i]];
        uint32_t word = bits_of(value);
        uint8_t symbol = word & 0xffffu ? LITERAL : symbol_of[word >> 16];
        symbols[i] = symbol;
        if (symbol == LITERAL) literals[made.literals++] = value;
    }
    return made;
}

/* Entries of a stream lie at any byte of a stored block: they are copied out, never pointed to. */
static inline uint16_t uint16_at(const void *values, Py_ssize_t i) {
    uint16_t value;
    memcpy(&value, (const char *)values + 2 * i, 2);
    return value;
}

static inline uint32_t uint32_at(const void *values, Py_ssize_t i) {
    uint32_t value;
    memcpy(&value, (const char *)values + 4 * i, 4);
    return value;
}

static inline float float_at(const void *values, Py_ssize_t i) {
    float value;
    memcpy(&value, (const char *)values + 4 * i, 4);
    return value;
}

/* The inverse; -1 where the streams do not fit one another or leave the block. `out` need not be zero before. */
static Py_ssize_t scatter(const uint8_t *gaps, Py_ssize_t gap_count, const uint8_t *symbols, Py_ssize_t symbol_count,
                          const float *values, int palette_length, const void *literals, Py_ssize_t literal_count,
                          int64_t *wide, Py_ssize_t wide_count, float *out, Py_ssize_t count) {
    Py_ssize_t place = 0, symbol_at = 0, literal_at = 0, wide_at = 0;
    memset(out, 0, (size_t)count * sizeof(float));
    if (gap_count && gaps[gap_count - 1] == SKIP) return -1;
    for (Py_ssize_t i = 0; i < gap_count; i++) {
        place += gaps[i];
        if (gaps[i] == SKIP) continue;
        if (place >= count || symbol_at >= symbol_count) return -1;
        uint8_t symbol = symbols[symbol_at++];
        if (symbol < palette_length) {
            out[place] = values[symbol];
        } else if (symbol == LITERAL) {
            if (literal_at >= literal_count) return -1;
            out[place] = float_at(literals, literal_at++);
        } else if (symbol == WIDE_ENTRY) {
            if (wide_at >= wide_count) return -1;
            wide[wide_at++] = place;
        } else {
            return -1;
        }
        place++;
    }
    return symbol_at == symbol_count && literal_at == literal_count && wide_at == wide_count ? symbol_count : -1;
}

WIDE static int any_all_ones_16(const void *values, uint16_t mask, Py_ssize_t count) {
    uint16_t odd = 0;
    for (Py_ssize_t i = 0; i < count; i++) odd |= (uint16_t)((uint16_at(values, i) & mask) == mask);
    return odd != 0;
}

WIDE static int any_all_ones_32(const void *values, uint32_t mask, Py_ssize_t count) {
    uint32_t odd = 0;
    for (Py_ssize_t i = 0; i < count; i++) odd |= (uint32_at(values, i) & mask) == mask;
    return odd != 0;
}

static inline int trailing_zeros(uint64_t bits) {
#if defined(__GNUC__)
    return __builtin_ctzll(bits);
#else
    int zeros = 0;
    for (; !(bits & 1); bits >>= 1) zeros++;
    return zeros;
#endif
}

/* Some entries of a block: where they are and what is added. */
typedef struct {
    int count;
    uint32_t place[PIECE];
    float step[PIECE];
} Piece;

/* Add a piece in place. `touched` gets a bit for each entry, the lowest first, and `old` their bits as they were. How
 * many have other bits now. */
static Py_ssize_t add_piece(const Piece *piece, uint16_t *weight, uint8_t *touched, uint16_t *restrict old,
                            double *asked, double *realised, int *odd) {
    uint16_t after[PIECE];
    int differ = 0;
    for (int i = 0; i < piece->count; i++) old[i] = weight[piece->place[i]];
    *odd |= add_float32(old, piece->step, 1.0f, after, piece->count, asked, realised);
    for (int i = 0; i < piece->count; i++) differ += after[i] != old[i];
    for (int i = 0; i < piece->count; i++) {
        uint32_t place = piece->place[i];
        weight[place] = after[i];
        touched[place >> 3] |= (uint8_t)(1 << (place & 7));
    }
    return differ;
}

/* The sum of ADD in place, for a delta that is taken apart as `scatter` has it, without wide entries; `steps` is the
 * palette times alpha. `touched`, zero before, and `old`, with room for all symbols, are filled as `add_piece` does.
 * How many changed, or -1 where the streams do not fit; what was done until then is told even so. */
static Py_ssize_t patch(const uint8_t *gaps, Py_ssize_t gap_count, const uint8_t *symbols, Py_ssize_t symbol_count,
                        const float *steps, int palette_length, const void *literals, Py_ssize_t literal_count,
                        float alpha, uint16_t *weight, Py_ssize_t count, uint8_t *touched, uint16_t *old,
                        double *asked, double *realised, int *odd) {
    Py_ssize_t at = 0, place = 0, symbol_at = 0, literal_at = 0, found = 0;
    Piece piece;
    if (gap_count && gaps[gap_count - 1] == SKIP) return -1;
    while (at < gap_count) {
        /* one short loop after another: each runs several times as fast as all in one */
        int filled = 0;
        uint8_t highest = 0;
        for (; at < gap_count && filled < PIECE; at++) {
            place += gaps[at];
            if (gaps[at] == SKIP) continue;
            piece.place[filled++] = (uint32_t)place++;
        }
        if (place > count || symbol_at + filled > symbol_count) return -1;
        const uint8_t *symbol = symbols + symbol_at;
        for (int i = 0; i < filled; i++) highest = symbol[i] > highest ? symbol[i] : highest;
        for (int i = 0; i < filled; i++) piece.step[i] = steps[symbol[i]];
        for (int i = 0; highest >= palette_length && i < filled; i++) {
            if (symbol[i] < palette_length) continue;
            if (symbol[i] != LITERAL || literal_at >= literal_count) return -1;
            piece.step[i] = float_at(literals, literal_at++) * alpha;
        }
        piece.count = filled;
        found += add_piece(&piece, weight, touched, old + symbol_at, asked, realised, odd);
        symbol_at += filled;
    }
    return symbol_at == symbol_count && literal_at == literal_count ? found : -1;
}

/* The inverse: how many of `old` were put back, or -1 where they do not fit. */
static Py_ssize_t put_back(uint16_t *weight, Py_ssize_t count, const uint8_t *touched, const uint16_t *old,
                           Py_ssize_t old_count) {
    Py_ssize_t at = 0;
    for (Py_ssize_t first = 0; first < count; first += 64) {
        uint64_t bits = 0;
        for (Py_ssize_t byte = first / 8; byte < (first + 64) / 8 && byte < (count + 7) / 8; byte++)
            bits |= (uint64_t)touched[byte] << (8 * (byte - first / 8));
        for (Py_ssize_t i = first; bits; i++, bits >>= 1) {
            int zeros = trailing_zeros(bits);
            i += zeros, bits >>= zeros;
            if (at >= old_count || i >= count) return -1;
            weight[i] = old[at++];
        }
    }
    return at;
}

/* ---- Python's side: buffers in, small values out; the interpreter's lock is not held in the loops ---- */

static int fits(const Py_buffer *buffer, Py_ssize_t count, Py_ssize_t itemsize) {
    if (buffer->len == count * itemsize) return 1;
    PyErr_Format(PyExc_ValueError, "a buffer has %zd bytes, %zd entries of %zd bytes are needed", buffer->len, count,
                 itemsize);
    return 0;
}

static PyObject *py_add(PyObject *self, PyObject *args) {
    Py_buffer weight, delta, out;
    double alpha;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*dw*", &weight, &delta, &alpha, &out)) return NULL;
    Py_ssize_t count = weight.len / 2;
    int is_long = delta.len == 4 * count;
    if (fits(&weight, count, 2) && fits(&out, count, 2) && fits(&delta, count, is_long ? 4 : 2)) {
        double asked[LANES] = {0}, realised[LANES] = {0};
        int odd;
        Py_BEGIN_ALLOW_THREADS
        odd = is_long ? add_float32(weight.buf, delta.buf, (float)alpha, out.buf, count, asked, realised)
                      : add_bfloat16(weight.buf, delta.buf, (float)alpha, out.buf, count, asked, realised);
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("ddO", total(asked), total(realised), odd ? Py_False : Py_True);
    }
    PyBuffer_Release(&weight), PyBuffer_Release(&delta), PyBuffer_Release(&out);
    return result;
}

static PyObject *py_add_at_random(PyObject *self, PyObject *args) {
    Py_buffer weight, delta, out;
    double alpha;
    unsigned long long key, start;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*dw*KK", &weight, &delta, &alpha, &out, &key, &start)) return NULL;
    Py_ssize_t count = weight.len / 2;
    int is_long = delta.len == 4 * count;
    if (fits(&weight, count, 2) && fits(&out, count, 2) && fits(&delta, count, is_long ? 4 : 2)) {
        double asked[LANES] = {0}, realised[LANES] = {0};
        int odd;
        Py_BEGIN_ALLOW_THREADS
        odd = add_at_random(weight.buf, delta.buf, is_long, alpha, out.buf, count, key, start, asked, realised);
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("ddO", total(asked), total(realised), odd ? Py_False : Py_True);
    }
    PyBuffer_Release(&weight), PyBuffer_Release(&delta), PyBuffer_Release(&out);
    return result;
}

static PyObject *py_subtract(PyObject *self, PyObject *args) {
    Py_buffer tuned, base, out;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*w*", &tuned, &base, &out)) return NULL;
    Py_ssize_t count = tuned.len / 2;
    if (fits(&tuned, count, 2) && fits(&base, count, 2) && fits(&out, count, 4)) {
        int flags;
        Py_BEGIN_ALLOW_THREADS
        flags = subtract(tuned.buf, base.buf, out.buf, count);
        Py_END_ALLOW_THREADS
        result = PyLong_FromLong(flags);
    }
    PyBuffer_Release(&tuned), PyBuffer_Release(&base), PyBuffer_Release(&out);
    return result;
}

static PyObject *py_survey(PyObject *self, PyObject *args) {
    Py_buffer tuned, base, difference;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*", &tuned, &base, &difference)) return NULL;
    Py_ssize_t count = tuned.len / 2;
    if (fits(&tuned, count, 2) && fits(&base, count, 2) && fits(&difference, count, 4)) {
        double of_base[LANES] = {0}, of_difference[LANES] = {0};
        int64_t bins[10] = {0};
        Py_ssize_t changed;
        Py_BEGIN_ALLOW_THREADS
        changed = survey(tuned.buf, base.buf, difference.buf, count, of_base, of_difference, bins);
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("ndd[LLLLLLLLLL]", changed, total(of_difference), total(of_base), bins[0], bins[1],
                               bins[2], bins[3], bins[4], bins[5], bins[6], bins[7], bins[8], bins[9]);
    }
    PyBuffer_Release(&tuned), PyBuffer_Release(&base), PyBuffer_Release(&difference);
    return result;
}

static PyObject *py_encode(PyObject *self, PyObject *args) {
    Py_buffer values, counts, where, gaps, symbols, literals, palette;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*w*w*w*w*w*w*", &values, &counts, &where, &palette, &gaps, &symbols, &literals))
        return NULL;
    Py_ssize_t count = values.len / 4;
    if (fits(&values, count, 4) && fits(&counts, 65536, 4) && fits(&where, count + 1, 4) && fits(&palette, 256, 2) &&
        fits(&symbols, count, 1) && fits(&literals, count, 4) && fits(&gaps, count + count / SKIP + 1, 1)) {
        int length;
        Streams made;
        Py_BEGIN_ALLOW_THREADS
        uint8_t symbol_of[65536];
        uint16_t *chosen = palette.buf;
        Py_ssize_t found = compact(values.buf, count, where.buf);
        length = choose_palette(values.buf, where.buf, found, counts.buf, chosen);
        qsort(chosen, (size_t)length, 2, ascending);
        memset(symbol_of, LITERAL, sizeof symbol_of);
        for (int symbol = 0; symbol < length; symbol++) symbol_of[chosen[symbol]] = (uint8_t)symbol;
        made = emit(values.buf, where.buf, found, symbol_of, gaps.buf, symbols.buf, literals.buf);
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("innn", length, made.gaps, made.symbols, made.literals);
    }
    PyBuffer_Release(&values), PyBuffer_Release(&counts), PyBuffer_Release(&where), PyBuffer_Release(&palette);
    PyBuffer_Release(&gaps), PyBuffer_Release(&symbols), PyBuffer_Release(&literals);
    return result;
}

static PyObject *py_decode(PyObject *self, PyObject *args) {
    Py_buffer gaps, symbols, palette, literals, wide, out;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*w*", &gaps, &symbols, &palette, &literals, &wide, &out)) return NULL;
    Py_ssize_t count = out.len / 4;
    if (fits(&out, count, 4) && fits(&literals, literals.len / 4, 4) && fits(&wide, wide.len / 8, 8)) {
        float values[256] = {0};
        int length = palette.len / 2 < PALETTE ? (int)(palette.len / 2) : PALETTE;
        for (int symbol = 0; symbol < length; symbol++) values[symbol] = widen(uint16_at(palette.buf, symbol));
        Py_ssize_t done;
        Py_BEGIN_ALLOW_THREADS
        done = scatter(gaps.buf, gaps.len, symbols.buf, symbols.len, values, length, literals.buf, literals.len / 4,
                       wide.buf, wide.len / 8, out.buf, count);
        Py_END_ALLOW_THREADS
        result = PyBool_FromLong(done >= 0);
    }
    PyBuffer_Release(&gaps), PyBuffer_Release(&symbols), PyBuffer_Release(&palette);
    PyBuffer_Release(&literals), PyBuffer_Release(&wide), PyBuffer_Release(&out);
    return result;
}

static PyObject *py_any_all_ones(PyObject *self, PyObject *args) {
    Py_buffer values;
    unsigned int mask;
    int itemsize, odd;
    if (!PyArg_ParseTuple(args, "y*Ii", &values, &mask, &itemsize)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    odd = itemsize == 2 ? any_all_ones_16(values.buf, (uint16_t)mask, values.len / 2)
                        : any_all_ones_32(values.buf, mask, values.len / 4);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&values);
    return PyBool_FromLong(odd);
}

/* The streams of one block of a run. */
typedef struct {
    Py_buffer gaps, symbols, palette, literals;
} Block;

static void release(Block *blocks, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < count; i++) {
        PyBuffer_Release(&blocks[i].gaps), PyBuffer_Release(&blocks[i].symbols);
        PyBuffer_Release(&blocks[i].palette), PyBuffer_Release(&blocks[i].literals);
    }
}

/* Borrow the buffers of a list of (gaps, symbols, palette, literals, ...); how many symbols there are, or -1. */
static Py_ssize_t borrow(PyObject *parts, Block *blocks, Py_ssize_t count) {
    Py_ssize_t symbols = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Block *block = blocks + i;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(parts, i), "y*y*y*y*", &block->gaps, &block->symbols, &block->palette,
                              &block->literals)) {
            release(blocks, i);
            return -1;
        }
        symbols += block->symbols.len;
    }
    return symbols;
}

/* `patch` of one block of `count` entries, the palette taken times alpha first. */
static Py_ssize_t patch_block(const Block *block, float alpha, uint16_t *weight, Py_ssize_t count, uint8_t *touched,
                              uint16_t *old, double *asked, double *realised, int *odd) {
    float steps[256] = {0};
    int length = block->palette.len / 2 < PALETTE ? (int)(block->palette.len / 2) : PALETTE;
    for (int symbol = 0; symbol < length; symbol++)
        steps[symbol] = widen(uint16_at(block->palette.buf, symbol)) * alpha;
    *odd = any_all_ones_16(weight, 0x7f80, count);
    if (*odd) return 0;
    return patch(block->gaps.buf, block->gaps.len, block->symbols.buf, block->symbols.len, steps, length,
                 block->literals.buf, block->literals.len / 4, alpha, weight, count, touched, old, asked, realised,
                 odd);
}

static PyObject *py_patch(PyObject *self, PyObject *args) {
    PyObject *parts, *result = NULL;
    Py_buffer weight, touched, old;
    Py_ssize_t length;
    double alpha, asked[LANES] = {0}, realised[LANES] = {0};
    if (!PyArg_ParseTuple(args, "O!ndw*w*w*", &PyList_Type, &parts, &length, &alpha, &weight, &touched, &old))
        return NULL;
    Py_ssize_t count = weight.len / 2, number = PyList_GET_SIZE(parts), symbols = -1;
    Block *blocks = PyMem_Calloc((size_t)number + 1, sizeof(Block));
    if (!blocks) PyErr_NoMemory();
    else if (length < 8 || length % 8 || number != (count ? (count + length - 1) / length : 1))
        PyErr_Format(PyExc_ValueError, "%zd blocks of %zd entries are no %zd entries", number, length, count);
    else symbols = borrow(parts, blocks, number);
    if (symbols >= 0 && fits(&weight, count, 2) && fits(&touched, (count + 7) / 8, 1) && fits(&old, symbols, 2)) {
        Py_ssize_t found = 0, done = 0, kept = 0;
        int odd = 0;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < number && done >= 0 && !odd; i++) {
            Py_ssize_t start = i * length, most = count - start < length ? count - start : length;
            done = patch_block(blocks + i, (float)alpha, (uint16_t *)weight.buf + start, most,
                               (uint8_t *)touched.buf + start / 8, (uint16_t *)old.buf + kept, asked, realised, &odd);
            found += done;
            kept += blocks[i].symbols.len;
        }
        Py_END_ALLOW_THREADS
        result = done < 0 ? Py_NewRef(Py_None)
                          : Py_BuildValue("nddO", found, total(asked), total(realised), odd ? Py_False : Py_True);
    }
    if (symbols >= 0) release(blocks, number);
    PyMem_Free(blocks);
    PyBuffer_Release(&weight), PyBuffer_Release(&touched), PyBuffer_Release(&old);
    return result;
}

static PyObject *py_put_back(PyObject *self, PyObject *args) {
    Py_buffer weight, touched, old;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "w*y*y*", &weight, &touched, &old)) return NULL;
    Py_ssize_t count = weight.len / 2, done;
    if (fits(&weight, count, 2) && fits(&touched, (count + 7) / 8, 1) && fits(&old, old.len / 2, 2)) {
        Py_BEGIN_ALLOW_THREADS
        done = put_back(weight.buf, count, touched.buf, old.buf, old.len / 2);
        Py_END_ALLOW_THREADS
        result = PyLong_FromSsize_t(done);
    }
    PyBuffer_Release(&weight), PyBuffer_Release(&touched), PyBuffer_Release(&old);
    return result;
}

static PyMethodDef methods[] = {
    {"add", py_add, METH_VARARGS, "add(weight, delta, alpha, out) -> asked, realised, finite"},
    {"add_at_random", py_add_at_random, METH_VARARGS,
     "add_at_random(weight, delta, alpha, out, key, start) -> asked, realised, finite"},
    {"subtract", py_subtract, METH_VARARGS, "subtract(tuned, base, out) -> flags"},
    {"survey", py_survey, METH_VARARGS, "survey(tuned, base, difference) -> changed, squares, base squares, steps"},
    {"encode", py_encode, METH_VARARGS,
     "encode(values, counts, palette, gaps, symbols, literals) -> how much of palette, gaps, symbols, literals"},
    {"decode", py_decode, METH_VARARGS, "decode(gaps, symbols, palette, literals, wide, out) -> whether they fit"},
    {"patch", py_patch, METH_VARARGS,
     "patch([(gaps, symbols, palette, literals)], length, alpha, weight, touched, old) -> changed, asked, realised, "
     "finite; or None"},
    {"put_back", py_put_back, METH_VARARGS, "put_back(weight, touched, old) -> how many"},
    {"any_all_ones", py_any_all_ones, METH_VARARGS, "any_all_ones(values, mask, itemsize) -> bool"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModule_Create(&module); }
