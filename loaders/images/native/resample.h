/* Pillow's antialiased bilinear filter, row by row, with identical results. Used by decode.c. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef PLAIN
#define PLAIN 0 /* 1: without AVX2 and BMI2, to compare both */
#endif

struct view {
    int32_t top, left, height, width;                      /* the box, in pixels of the image */
    int32_t rows, columns;                                 /* the size to which the box is resized */
    int32_t top_row, left_column, kept_rows, kept_columns; /* the part of the resized box to return */
    int32_t flip;                                          /* whether to mirror that part */
    int32_t scaled;                                        /* whether large JPEGs may be decoded smaller: not exact */
    int32_t libjpeg;                                       /* whether libjpeg-turbo's Huffman decoder is used */
};

/* ---- Pillow's filter, in fixed point (src/libImaging/Resample.c) ---- */

enum { PRECISION = 32 - 8 - 2, ROUND = 1 << (PRECISION - 1) };
enum { COPIES = 4 };          /* of each horizontal weight: one per byte of an RGBX pixel */
enum { MOST_TAPS = 1 << 14 }; /* with more, the rounded weights could sum to a white of 256 */

/* One direction of the resize: an output pixel is the weighted sum of `taps` consecutive input pixels. */
struct axis {
    int count, taps;  /* output pixels; input pixels per output pixel, some with weight zero */
    int begin, end;   /* range of input pixels needed by any output pixel */
    int *start;       /* [count] first input pixel of each, relative to `begin` */
    int32_t *weights; /* [count][taps][copies] */
};

/* One direction of the box, in decoded pixels: it starts `from` into pixel `first`, is `extent` long, and touches
 * `length` pixels. */
struct span {
    int first, length;
    double from, extent;
};

/* Span of a box whose pixels are decoded at 1 / `scale` of their size. */
static struct span span_of(int32_t begin, int32_t length, int scale)
{
    struct span span = {.first = begin / scale, .extent = (double)length / scale};
    span.length = (int)(((int64_t)begin + length + scale - 1) / scale) - span.first;
    span.from = (double)(begin % scale) / scale;
    return span;
}

/* Filter support of one output pixel, in input pixels of the span. */
struct support {
    double center, radius;
    int first, count;
};

static struct support support_of(int output, const struct span *span, int resized)
{
    double scale = span->extent / resized;
    struct support support = {.center = span->from + (output + 0.5) * scale, .radius = scale < 1.0 ? 1.0 : scale};
    int first = (int)(support.center - support.radius + 0.5), end = (int)(support.center + support.radius + 0.5);
    support.first = first < 0 ? 0 : first;
    support.count = (end > span->length ? span->length : end) - support.first;
    return support;
}

static void compute_weights(struct support support, int copies, double *shares, int32_t *weights)
{
    double total = 0.0, slope = 1.0 / support.radius;
    for (int i = 0; i < support.count; i++) {
        double distance = (i + support.first - support.center + 0.5) * slope;
        if (distance < 0.0)
            distance = -distance;
        shares[i] = distance < 1.0 ? 1.0 - distance : 0.0;
        total += shares[i];
    }
    for (int i = 0; i < support.count; i++)
        for (int copy = 0; copy < copies; copy++) {
            double share = total != 0.0 ? shares[i] / total : shares[i];
            weights[i * copies + copy] = (int32_t)(0.5 + share * (1 << PRECISION));
        }
}

/* Fill in an axis for output pixels kept..kept + count of `resized`, in reverse if `flip`.
 *
 * `taps` is a multiple of `step`; the taps exceed the input only if all of it is shorter. Each weight is stored
 * `copies` times, one per byte of a pixel in the loop. Returns 0 on failure.
 */
static int make_axis(struct axis *axis, const struct span *span, int resized, int kept, int count, int flip, int step,
                     int copies)
{
    int most = 1, length = span->length;
    for (int i = 0; i < count; i++) {
        int taps = support_of(kept + i, span, resized).count;
        most = taps > most ? taps : most;
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
        struct support support = support_of(kept + (flip ? count - 1 - i : i), span, resized);
        int last = length > axis->taps ? length - axis->taps : 0; /* at the end, zeros precede the weights */
        int start = support.first < last ? support.first : last;
        size_t skipped = (size_t)i * axis->taps + support.first - start;
        axis->start[i] = start;
        compute_weights(support, copies, shares, axis->weights + skipped * copies);
    }
    free(shares);
    axis->begin = axis->start[flip ? count - 1 : 0];
    axis->end = axis->start[flip ? 0 : count - 1] + axis->taps;
    axis->end = axis->end > length ? length : axis->end;
    for (int i = 0; i < count; i++)
        axis->start[i] -= axis->begin;
    return 1;
}

/* ---- The two inner loops, plain and for AVX2. Both use integers only, so that their results are equal ---- */

enum { LANES = 16 }; /* bytes per step of the vertical loop; rows are padded to a multiple of it */

/* Resize a row horizontally, from RGBX to RGB. */
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

/* Resize vertically: each of `room` output bytes is a weighted sum over `taps` rows. */
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

/* Two pixels at a time; writes one byte past the end. */
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
        words = _mm256_permute4x64_epi64(words, 0xD8); /* packing works on each half of a register separately */
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

/* ---- The resizer: takes RGBX rows one by one, writes RGB rows ---- */

struct resizer {
    struct axis across, down;
    size_t stride;         /* bytes of a horizontally resized row, with padding */
    uint8_t *recent;       /* [down.taps][stride] latest such rows: row n at n % taps */
    const uint8_t **rows;  /* [down.taps] the ones that make the next output row */
    uint8_t *row;          /* [stride] the output row, with padding */
    int rows_in, rows_out; /* done */
    int top, left;         /* of the box, in decoded pixels */
    int avx2;
    uint8_t *out;
};

static int open_resizer(struct resizer *resizer, const struct view *view, int scale, uint8_t *out)
{
    struct span columns = span_of(view->left, view->width, scale), rows = span_of(view->top, view->height, scale);
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

/* Write the next output row. */
static void write_row(struct resizer *resizer)
{
    const struct axis *down = &resizer->down;
    for (int tap = 0; tap < down->taps; tap++)
        resizer->rows[tap] = resizer->recent + (down->start[resizer->rows_out] + tap) % down->taps * resizer->stride;
    const int32_t *weights = down->weights + (size_t)resizer->rows_out * down->taps;
    (resizer->avx2 ? down_avx2 : down_plain)(resizer->rows, weights, down->taps, resizer->stride, resizer->row);
    size_t width = (size_t)resizer->across.count * 3;
    memcpy(resizer->out + resizer->rows_out * width, resizer->row, width);
    resizer->rows_out++;
}

/* Add the next input row: pixels across.begin..across.end, and one more pixel with any value. */
static void add_row(struct resizer *resizer, const uint8_t *row)
{
    const struct axis *down = &resizer->down;
    uint8_t *resized = resizer->recent + resizer->rows_in % down->taps * resizer->stride;
    (resizer->avx2 ? across_avx2 : across_plain)(&resizer->across, row, resized);
    resizer->rows_in++;
    while (resizer->rows_out < down->count && down->start[resizer->rows_out] + down->taps <= resizer->rows_in)
        write_row(resizer);
}

/* Whether a view lies within an image of this size. */
static int is_within(const struct view *view, int64_t height, int64_t width)
{
    return view->top >= 0 && view->left >= 0 && view->height > 0 && view->width > 0 &&
           (int64_t)view->top + view->height <= height && (int64_t)view->left + view->width <= width &&
           view->top_row >= 0 && view->left_column >= 0 && view->kept_rows > 0 && view->kept_columns > 0 &&
           (int64_t)view->top_row + view->kept_rows <= view->rows &&
           (int64_t)view->left_column + view->kept_columns <= view->columns;
}
