/* What decode.c does to rows once they are decoded: Pillow's antialiased bilinear filter, row by row, to the bit. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef PLAIN
#define PLAIN 0 /* 1: without AVX2, to compare the two */
#endif

struct view {
    int32_t top, left, height, width;                      /* the box, in pixels of the image */
    int32_t rows, columns;                                 /* the size to which the box is resized */
    int32_t top_row, left_column, kept_rows, kept_columns; /* what is wanted of that */
    int32_t flip;                                          /* whether what is wanted is mirrored */
    int32_t scaled;                                        /* whether large JPEGs may be decoded smaller: not exact */
};

/* ---- The filter: Pillow's, in its fixed point (src/libImaging/Resample.c) ---- */

enum { PRECISION = 32 - 8 - 2, ROUND = 1 << (PRECISION - 1) };
enum { COPIES = 4 };          /* of each weight across: one for each colour, and one for the byte beside them */
enum { MOST_TAPS = 1 << 14 }; /* with more, the rounded weights could add up to a white of 256 */

/* One direction of the resize: an output pixel is the weighted sum of `taps` pixels of the input, one after another. */
struct axis {
    int count, taps;  /* output pixels; input pixels of each, some of them with weight zero */
    int begin, end;   /* the input pixels that any output pixel needs */
    int *start;       /* [count] the first pixel of each, counted from `begin` */
    int32_t *weights; /* [count][taps][copies] */
};

/* One direction of the box, in pixels as they are decoded: of `length` whole ones it takes `share`, `from` the first. */
struct span {
    int first, length;
    double from, share;
};

/* The same of a box whose pixels are decoded at one of `smaller` of their size. */
static struct span span_of(int32_t begin, int32_t length, int smaller)
{
    struct span span = {.first = begin / smaller, .share = (double)length / smaller};
    span.length = (int)(((int64_t)begin + length + smaller - 1) / smaller) - span.first;
    span.from = (double)(begin % smaller) / smaller;
    return span;
}

/* The pixels of a span, resized to `resized`, that the filter covers around one of them. */
struct reach {
    double centre, stretch;
    int first, count;
};

static struct reach reach_of(int output, const struct span *span, int resized)
{
    double scale = span->share / resized;
    struct reach reach = {.centre = span->from + (output + 0.5) * scale, .stretch = scale < 1.0 ? 1.0 : scale};
    int first = (int)(reach.centre - reach.stretch + 0.5), end = (int)(reach.centre + reach.stretch + 0.5);
    reach.first = first < 0 ? 0 : first;
    reach.count = (end > span->length ? span->length : end) - reach.first;
    return reach;
}

static void weigh(struct reach reach, int copies, double *shares, int32_t *weights)
{
    double total = 0.0, slope = 1.0 / reach.stretch;
    for (int i = 0; i < reach.count; i++) {
        double distance = (i + reach.first - reach.centre + 0.5) * slope;
        if (distance < 0.0)
            distance = -distance;
        shares[i] = distance < 1.0 ? 1.0 - distance : 0.0;
        total += shares[i];
    }
    for (int i = 0; i < reach.count; i++)
        for (int copy = 0; copy < copies; copy++) {
            double share = total != 0.0 ? shares[i] / total : shares[i];
            weights[i * copies + copy] = (int32_t)(0.5 + share * (1 << PRECISION));
        }
}

/* Fill in an axis for output pixels kept..kept + count of `resized`, in reverse if `flip`.
 *
 * `taps` is a multiple of `step`; only where the whole input is shorter than that do they reach beyond it. Each weight
 * is stored `copies` times, as the loop that reads them wants it. Returns 0 if it cannot be done.
 */
static int make_axis(struct axis *axis, const struct span *span, int resized, int kept, int count, int flip, int step,
                     int copies)
{
    int most = 1, length = span->length;
    for (int i = 0; i < count; i++) {
        struct reach reach = reach_of(kept + i, span, resized);
        most = reach.count > most ? reach.count : most;
    }
    if (most > MOST_TAPS)
        return 0;
    axis->count = count;
    axis->taps = (most + step - 1) / step * step;
    axis->start = calloc(count, sizeof *axis->start);
    axis->weights = calloc((size_t)count * axis->taps, copies * sizeof *axis->weights);
    double *shares = calloc(most, sizeof *shares);
    if (!axis->start || !axis->weights || !shares) {
        free(shares);
        return 0;
    }
    for (int i = 0; i < count; i++) {
        struct reach reach = reach_of(kept + (flip ? count - 1 - i : i), span, resized);
        int last = length > axis->taps ? length - axis->taps : 0; /* at the end, zeros go before the weights */
        int start = reach.first < last ? reach.first : last;
        axis->start[i] = start;
        weigh(reach, copies, shares, axis->weights + ((size_t)i * axis->taps + reach.first - start) * copies);
    }
    free(shares);
    axis->begin = axis->start[flip ? count - 1 : 0];
    axis->end = axis->start[flip ? 0 : count - 1] + axis->taps;
    axis->end = axis->end > length ? length : axis->end;
    for (int i = 0; i < count; i++)
        axis->start[i] -= axis->begin;
    return 1;
}

/* ---- The two loops that take the time: plain, and for AVX2. All is integers, so that both give the same ---- */

enum { LANES = 16 }; /* bytes that are resized down at a time: rows have room up to a multiple of it */

/* A row across: red, green, blue and nothing in, red, green, blue out. */
static void across_plain(const struct axis *axis, const uint8_t *row, uint8_t *out)
{
    const int32_t *weights = axis->weights;
    for (int i = 0; i < axis->count; i++, out += 3) {
        const uint8_t *pixel = row + 4 * (size_t)axis->start[i];
        int32_t red = ROUND, green = ROUND, blue = ROUND;
        for (int tap = 0; tap < axis->taps; tap++, pixel += 4, weights += COPIES) {
            red += pixel[0] * *weights;
            green += pixel[1] * *weights;
            blue += pixel[2] * *weights;
        }
        out[0] = (uint8_t)(red >> PRECISION);
        out[1] = (uint8_t)(green >> PRECISION);
        out[2] = (uint8_t)(blue >> PRECISION);
    }
}

/* `room` bytes, each of the bytes that stand in the same place of `taps` rows. */
static void down_plain(const uint8_t **rows, const int32_t *weights, int taps, size_t room, uint8_t *out)
{
    for (size_t at = 0; at < room; at++) {
        int32_t sum = ROUND;
        for (int tap = 0; tap < taps; tap++)
            sum += rows[tap][at] * weights[tap];
        out[at] = (uint8_t)(sum >> PRECISION);
    }
}

#ifdef __x86_64__
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

/* Two pixels at a time; writes one byte too many. */
AVX2 static void across_avx2(const struct axis *axis, const uint8_t *row, uint8_t *out)
{
    const __m128i to_bytes = _mm_setr_epi8(0, 4, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const int32_t *weights = axis->weights;
    for (int i = 0; i < axis->count; i++, out += 3) {
        const uint8_t *pixels = row + 4 * (size_t)axis->start[i];
        __m256i sums = _mm256_setr_epi32(ROUND, ROUND, ROUND, 0, 0, 0, 0, 0);
        for (int tap = 0; tap < axis->taps; tap += 2, pixels += 8, weights += 2 * COPIES) {
            __m256i pair = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)pixels));
            sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(pair, _mm256_loadu_si256((const __m256i *)weights)));
        }
        __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        int pixel = _mm_cvtsi128_si32(_mm_shuffle_epi8(_mm_srai_epi32(sum, PRECISION), to_bytes));
        memcpy(out, &pixel, 4);
    }
}

AVX2 static void down_avx2(const uint8_t **rows, const int32_t *weights, int taps, size_t room, uint8_t *out)
{
    for (size_t at = 0; at < room; at += LANES) {
        __m256i low = _mm256_set1_epi32(ROUND), high = low;
        for (int tap = 0; tap < taps; tap++) {
            __m256i weight = _mm256_set1_epi32(weights[tap]);
            __m256i first = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(rows[tap] + at)));
            __m256i second = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(rows[tap] + at + 8)));
            low = _mm256_add_epi32(low, _mm256_mullo_epi32(first, weight));
            high = _mm256_add_epi32(high, _mm256_mullo_epi32(second, weight));
        }
        __m256i words = _mm256_packs_epi32(_mm256_srai_epi32(low, PRECISION), _mm256_srai_epi32(high, PRECISION));
        words = _mm256_permute4x64_epi64(words, 0xD8); /* packing works on each half of a register by itself */
        __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(out + at), bytes);
    }
}

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}
#else
#define across_avx2 across_plain
#define down_avx2 down_plain

static int has_avx2(void)
{
    return 0;
}
#endif

/* ---- The resize: rows of 4 bytes a pixel go in one by one, rows of 3 bytes a pixel come out ---- */

struct resizer {
    struct axis across, down;
    size_t stride;        /* bytes of a row that is resized across, and some room */
    uint8_t *recent;      /* [down.taps][stride] such rows: number n at n % taps */
    const uint8_t **rows; /* [down.taps], those of one row of the result */
    uint8_t *row;         /* [stride], that row */
    int taken, given;     /* rows in, rows out */
    int top, left;        /* of the box, in pixels as they are decoded */
    int avx2;
    uint8_t *out;
};

static int open_resizer(struct resizer *resizer, const struct view *view, int smaller, uint8_t *out)
{
    struct span columns = span_of(view->left, view->width, smaller), rows = span_of(view->top, view->height, smaller);
    resizer->left = columns.first;
    resizer->top = rows.first;
    resizer->out = out;
    resizer->avx2 = has_avx2() && !PLAIN;
    resizer->stride = ((size_t)view->kept_columns * 3 + LANES) / LANES * LANES;
    return make_axis(&resizer->across, &columns, view->columns, view->left_column, view->kept_columns, view->flip, 2,
                     COPIES) &&
           make_axis(&resizer->down, &rows, view->rows, view->top_row, view->kept_rows, 0, 1, 1) &&
           (resizer->recent = calloc(resizer->down.taps, resizer->stride)) &&
           (resizer->row = calloc(1, resizer->stride)) &&
           (resizer->rows = calloc(resizer->down.taps, sizeof *resizer->rows));
}

static void close_resizer(struct resizer *resizer)
{
    free(resizer->across.start);
    free(resizer->across.weights);
    free(resizer->down.start);
    free(resizer->down.weights);
    free(resizer->recent);
    free(resizer->rows);
    free(resizer->row);
}

/* One row of the result: the next. */
static void give(struct resizer *resizer)
{
    const struct axis *down = &resizer->down;
    for (int tap = 0; tap < down->taps; tap++)
        resizer->rows[tap] = resizer->recent + (down->start[resizer->given] + tap) % down->taps * resizer->stride;
    const int32_t *weights = down->weights + (size_t)resizer->given * down->taps;
    (resizer->avx2 ? down_avx2 : down_plain)(resizer->rows, weights, down->taps, resizer->stride, resizer->row);
    size_t width = (size_t)resizer->across.count * 3;
    memcpy(resizer->out + resizer->given * width, resizer->row, width);
    resizer->given++;
}

/* The next row of the input: its pixels across.begin..across.end, and one pixel of anything. */
static void take(struct resizer *resizer, const uint8_t *row)
{
    const struct axis *down = &resizer->down;
    uint8_t *resized = resizer->recent + resizer->taken % down->taps * resizer->stride;
    (resizer->avx2 ? across_avx2 : across_plain)(&resizer->across, row, resized);
    resizer->taken++;
    while (resizer->given < down->count && down->start[resizer->given] + down->taps <= resizer->taken)
        give(resizer);
}

/* Whether a view makes sense for an image of this size. */
static int is_within(const struct view *view, int64_t height, int64_t width)
{
    return view->top >= 0 && view->left >= 0 && view->height > 0 && view->width > 0 &&
           (int64_t)view->top + view->height <= height && (int64_t)view->left + view->width <= width &&
           view->top_row >= 0 && view->left_column >= 0 && view->kept_rows > 0 && view->kept_columns > 0 &&
           (int64_t)view->top_row + view->kept_rows <= view->rows &&
           (int64_t)view->left_column + view->kept_columns <= view->columns;
}
