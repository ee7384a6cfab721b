/* Pillow's antialiased filters and OpenCV's INTER_AREA, row by row, with identical results. Used by decode.c. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "weights.h"

#ifndef PLAIN
#define PLAIN 0 /* 1: without AVX2, BMI2 and NEON, to compare both */
#endif

struct view {
    int32_t top, left, height, width;                      /* the box, in pixels of the image */
    int32_t rows, columns;                                 /* the size to which the box is resized */
    int32_t top_row, left_column, kept_rows, kept_columns; /* the part of the resized box to return */
    int32_t flip;                                          /* whether to mirror that part */
    int32_t scaled;                                        /* whether large JPEGs may be decoded smaller: not exact */
    int32_t libjpeg;                                       /* whether libjpeg-turbo's Huffman decoder is used */
    int32_t filter;                                        /* BILINEAR, BICUBIC or AREA */
};

/* ---- Pillow's two inner loops, plain and with SIMD. All use integers only, so that their results are equal ---- */

/* Round a sum to a byte; the bicubic filter overshoots. */
static uint8_t to_byte(int32_t sum)
{
    sum >>= PRECISION;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

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
        out[0] = to_byte(red);
        out[1] = to_byte(green);
        out[2] = to_byte(blue);
    }
}

/* Resize vertically: each of `room` output bytes is a weighted sum over `taps` rows. Compilers vectorize the lanes. */
static void down_plain(const uint8_t **rows, const int32_t *weights, int taps, size_t room, uint8_t *out)
{
    for (size_t at = 0; at < room; at += LANES) {
        int32_t sums[LANES];
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] = ROUND;
        for (int tap = 0; tap < taps; tap++)
            for (int lane = 0; lane < LANES; lane++)
                sums[lane] += rows[tap][at + lane] * weights[tap];
        for (int lane = 0; lane < LANES; lane++)
            out[at + lane] = to_byte(sums[lane]);
    }
}

#if defined __x86_64__
/* Two pixels at a time; writes one byte past the end. */
AVX2 static void across_simd(const struct axis *axis, const uint8_t *row, uint8_t *out)
{
    const int32_t *weights = axis->weights;
    for (int i = 0; i < axis->count; i++, out += 3) {
        const uint8_t *pixels = row + 4 * (size_t)axis->start[i];
        __m256i sums = _mm256_setr_epi32(ROUND, ROUND, ROUND, 0, 0, 0, 0, 0);
        for (int tap = 0; tap < axis->taps; tap += 2, pixels += 8, weights += 2 * COPIES) {
            __m256i pair = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)pixels));
            sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(pair, _mm256_loadu_si256((const __m256i *)weights)));
        }
        __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        __m128i words = _mm_packs_epi32(_mm_srai_epi32(sum, PRECISION), sum);
        int pixel = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
        memcpy(out, &pixel, 4);
    }
}

AVX2 static void down_simd(const uint8_t **rows, const int32_t *weights, int taps, size_t room, uint8_t *out)
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

static int has_simd(void)
{
    return __builtin_cpu_supports("avx2");
}
#elif defined __aarch64__
#include <arm_neon.h>

/* Two pixels at a time: compilers vectorize the plain loop only for 16 taps or more. */
static void across_simd(const struct axis *axis, const uint8_t *row, uint8_t *out)
{
    const int32x4_t zero = vdupq_n_s32(0), round = vsetq_lane_s32(0, vdupq_n_s32(ROUND), 3);
    const int32_t *weights = axis->weights;
    for (int i = 0; i < axis->count; i++, out += 3) {
        const uint8_t *pixels = row + 4 * (size_t)axis->start[i];
        int32x4_t first = round, second = zero;
        for (int tap = 0; tap < axis->taps; tap += 2, pixels += 8, weights += 2 * COPIES) {
            int16x8_t pair = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(pixels)));
            first = vmlaq_s32(first, vmovl_s16(vget_low_s16(pair)), vld1q_s32(weights));
            second = vmlaq_s32(second, vmovl_high_s16(pair), vld1q_s32(weights + COPIES));
        }
        int32x4_t sum = vshrq_n_s32(vaddq_s32(first, second), PRECISION);
        uint16x4_t words = vqmovun_s32(sum);
        uint8x8_t bytes = vqmovn_u16(vcombine_u16(words, words));
        out[0] = vget_lane_u8(bytes, 0);
        out[1] = vget_lane_u8(bytes, 1);
        out[2] = vget_lane_u8(bytes, 2);
    }
}

#define down_simd down_plain

static int has_simd(void)
{
    return 1;
}
#else
#define across_simd across_plain
#define down_simd down_plain

static int has_simd(void)
{
    return 0;
}
#endif

/* ---- The resizer: takes RGBX rows one by one, writes RGB rows ---- */

struct resizer {
    struct axis across, down;
    size_t room, stride;   /* colors of a horizontally resized row, with padding; their bytes */
    uint8_t *recent;       /* [down.taps][stride] latest such rows: row n at n % taps */
    const uint8_t **rows;  /* [down.taps] the ones that make the next output row */
    uint8_t *row;          /* [room] the output row, with padding */
    int rows_in, rows_out; /* done */
    int top, left;         /* of the box, in decoded pixels */
    int simd;
    int filter, mode; /* mode and scale: of the area filter */
    float scale;
    uint8_t *out;
};

static int open_resizer(struct resizer *resizer, const struct view *view, int scale, uint8_t *out)
{
    struct span columns = span_of(view->left, view->width, scale, view->filter);
    struct span rows = span_of(view->top, view->height, scale, view->filter);
    resizer->filter = view->filter;
    if (view->filter == AREA) {
        double across = area_scale(view->width, view->columns), down = area_scale(view->height, view->rows);
        columns.mode = rows.mode = resizer->mode = area_mode(across, down);
        double cell = resizer->mode == WHOLE ? rint(across) * rint(down) : 1.0;
        resizer->scale = 1.0f / (float)cell;
        if (cell > MOST_CELL)
            return 0;
    }
    resizer->left = columns.first;
    resizer->top = rows.first;
    resizer->out = out;
    resizer->simd = has_simd() && !PLAIN;
    resizer->room = ((size_t)view->kept_columns * 3 + LANES) / LANES * LANES;
    resizer->stride = resizer->room * (view->filter == AREA ? sizeof(float) : 1);
    int step = view->filter == AREA ? 1 : 2, copies = view->filter == AREA ? 1 : COPIES;
    return make_axis(&resizer->across, &columns, view->columns, view->left_column, view->kept_columns, view->flip, step,
                     copies) &&
           make_axis(&resizer->down, &rows, view->rows, view->top_row, view->kept_rows, 0, 1, 1) &&
           (resizer->recent = calloc(resizer->down.taps, resizer->stride)) &&
           (resizer->row = calloc(1, resizer->room)) &&
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
    size_t at = (size_t)resizer->rows_out * down->taps;
    if (resizer->filter == AREA)
        (resizer->simd ? down_area_simd : down_area)(resizer->rows, down->shares + at, down->taps, resizer->room,
                                                     resizer->mode, resizer->scale, resizer->row);
    else
        (resizer->simd ? down_simd : down_plain)(resizer->rows, down->weights + at, down->taps, resizer->room,
                                                 resizer->row);
    size_t width = (size_t)resizer->across.count * 3;
    memcpy(resizer->out + resizer->rows_out * width, resizer->row, width);
    resizer->rows_out++;
}

/* Add the next input row: pixels across.begin..across.end, and one more pixel with any value. */
static void add_row(struct resizer *resizer, const uint8_t *row)
{
    const struct axis *down = &resizer->down;
    uint8_t *resized = resizer->recent + resizer->rows_in % down->taps * resizer->stride;
    const struct axis *across = &resizer->across;
    if (resizer->filter == AREA)
        (resizer->simd ? across_area_simd : across_area)(across->start, across->shares, across->count, across->taps,
                                                         row, (float *)resized);
    else
        (resizer->simd ? across_simd : across_plain)(across, row, resized);
    resizer->rows_in++;
    while (resizer->rows_out < down->count && down->start[resizer->rows_out] + down->taps <= resizer->rows_in)
        write_row(resizer);
}

/* Whether a view lies within an image of this size. */
static int is_within(const struct view *view, int64_t height, int64_t width)
{
    return view->top >= 0 && view->left >= 0 && view->height > 0 && view->width > 0 &&
           (int64_t)view->top + view->height <= height && (int64_t)view->left + view->width <= width &&
           view->filter >= 0 && view->filter < FILTERS && view->top_row >= 0 && view->left_column >= 0 && view->kept_rows > 0 && view->kept_columns > 0 &&
           (int64_t)view->top_row + view->kept_rows <= view->rows &&
           (int64_t)view->left_column + view->kept_columns <= view->columns;
}
