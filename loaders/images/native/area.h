/* OpenCV's INTER_AREA (modules/imgproc/src/resize.cpp), with the results of its builds for x86. Used by weights.h.
 *
 * Its arithmetic depends on both scales. Shrinking by whole numbers, it sums the pixels of a cell; by others, it weights
 * them by the part that is in the cell, in float32; enlarging either side, it interpolates in fixed point. Here all sums
 * are float32, which holds those of integers exactly. Compile without contraction to fused multiply-adds, which round
 * once less.
 */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { BILINEAR, BICUBIC, AREA, FILTERS };  /* in the order of decoders.py */
enum { WHOLE, TWO_BY_TWO, PARTS, ENLARGE }; /* modes of the area filter */
enum { AREA_ONE = 1 << 11 };                /* a weight of 1 when enlarging */
enum { MOST_CELL = 1 << 16 };               /* pixels of a cell whose sum float32 holds exactly */
enum { LANES = 16 };                        /* bytes per step of the vertical loops; rows are padded to a multiple of it */

/* The input pixels of an output pixel, and the weights of the first, of the last and of those between. */
struct cell {
    int first, count;
    float head, body, tail;
};

/* Input pixels per output pixel, as OpenCV computes it. */
static double area_scale(int length, int resized)
{
    return 1.0 / ((double)resized / length);
}

static int is_whole(double scale)
{
    return fabs(scale - rint(scale)) < DBL_EPSILON;
}

static int area_mode(double across, double down)
{
    if (across < 1.0 || down < 1.0)
        return ENLARGE;
    if (!is_whole(across) || !is_whole(down))
        return PARTS;
    return rint(across) == 2.0 && rint(down) == 2.0 ? TWO_BY_TWO : WHOLE;
}

/* Cell of an output pixel of `resized`. */
static struct cell cell_of(int output, int length, int resized, int mode)
{
    double scale = area_scale(length, resized), begin = output * scale, end = begin + scale;
    if (mode == WHOLE || mode == TWO_BY_TWO)
        return (struct cell){output * (int)rint(scale), (int)rint(scale), 1.0f, 1.0f, 1.0f};
    if (mode == ENLARGE) {
        int first = (int)floor(begin), last = length - 1;
        if (first >= last)
            return (struct cell){last, 1, AREA_ONE, 0.0f, 0.0f};
        float far = (float)((output + 1) - (first + 1) * ((double)resized / length));
        far = far <= 0.0f ? 0.0f : far - floorf(far);
        return (struct cell){first, 2, rintf((1.0f - far) * AREA_ONE), 0.0f, rintf(far * AREA_ONE)};
    }
    double width = scale < length - begin ? scale : length - begin;
    int first = (int)ceil(begin), last = (int)floor(end);
    last = last < length - 1 ? last : length - 1;
    first = first < last ? first : last;
    float body = (float)(1.0 / width);
    struct cell cell = {first, last - first, body, body, body};
    if (end - last > 1e-3) {
        double part = end - last < 1.0 ? end - last : 1.0;
        cell.tail = (float)((part < width ? part : width) / width);
        if (cell.count++ == 0)
            cell.head = cell.tail;
    }
    if (first - begin > 1e-3) {
        cell.head = (float)((first - begin) / width);
        cell.first--, cell.count++;
    }
    return cell;
}

static void compute_shares(struct cell cell, float *shares)
{
    for (int i = 1; i < cell.count - 1; i++)
        shares[i] = cell.body;
    shares[cell.count - 1] = cell.tail;
    shares[0] = cell.head;
}

/* ---- The two inner loops ---- */

#define INLINE static inline __attribute__((always_inline))

/* Sum a row horizontally, from RGBX bytes to RGB floats; writes one float past the end. */
static void across_area(const int *starts, const float *shares, int count, int taps, const uint8_t *row, float *out)
{
    for (int i = 0; i < count; i++, out += 3) {
        const uint8_t *pixel = row + 4 * (size_t)starts[i];
        float sums[4] = {0};
        for (int tap = 0; tap < taps; tap++, pixel += 4, shares++)
            for (int color = 0; color < 4; color++)
                sums[color] += (float)pixel[color] * *shares;
        memcpy(out, sums, sizeof sums);
    }
}

/* Sum floats vertically, over `taps` rows of `room`, to bytes: multiplied by `scale` and rounded half to even, or as
 * quarters rounded half up. */
INLINE void down_area(const uint8_t **rows, const float *shares, int taps, size_t room, int mode, float scale,
                      uint8_t *out)
{
    for (size_t at = 0; at < room; at += LANES) {
        float sums[LANES] = {0};
        for (int tap = 0; tap < taps && mode != ENLARGE; tap++)
            for (int lane = 0; lane < LANES; lane++)
                sums[lane] += ((const float *)rows[tap])[at + lane] * shares[tap];
        for (int tap = 0; tap < taps && mode == ENLARGE; tap++)
            for (int lane = 0; lane < LANES; lane++)
                sums[lane] += (float)(((int)((const float *)rows[tap])[at + lane] >> 4) * (int)shares[tap] >> 16);
        if (mode == ENLARGE || mode == TWO_BY_TWO)
            for (int lane = 0; lane < LANES; lane++)
                out[at + lane] = (uint8_t)(((int)sums[lane] + 2) >> 2);
        else
            for (int lane = 0; lane < LANES; lane++) {
                float shifted = sums[lane] * scale + 0x1p23f; /* whose last bits are the rounded number */
                uint32_t bits;
                memcpy(&bits, &shifted, sizeof bits);
                out[at + lane] = (uint8_t)bits;
            }
    }
}

#if defined __x86_64__
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2"))) /* without fused multiply-adds */

AVX2 static void across_area_simd(const int *starts, const float *shares, int count, int taps, const uint8_t *row,
                                  float *out)
{
    for (int i = 0; i < count; i++, out += 3) {
        const uint8_t *pixel = row + 4 * (size_t)starts[i];
        __m128 sums = _mm_setzero_ps();
        for (int tap = 0; tap < taps; tap++, pixel += 4, shares++) {
            int bytes;
            memcpy(&bytes, pixel, 4);
            __m128 colors = _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)));
            sums = _mm_add_ps(sums, _mm_mul_ps(colors, _mm_set1_ps(*shares)));
        }
        _mm_storeu_ps(out, sums);
    }
}

AVX2 static void down_area_simd(const uint8_t **rows, const float *shares, int taps, size_t room, int mode, float scale,
                                uint8_t *out)
{
    down_area(rows, shares, taps, room, mode, scale, out);
}
#else
#define across_area_simd across_area
#define down_area_simd down_area
#endif
