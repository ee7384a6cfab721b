/* Weights of Pillow's antialiased filters, in fixed point (src/libImaging/Resample.c). Used by resample.h. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "area.h"

enum { PRECISION = 32 - 8 - 2, ROUND = 1 << (PRECISION - 1) };
enum { COPIES = 4 };          /* of each horizontal weight: one per byte of an RGBX pixel */
enum { MOST_TAPS = 1 << 14 }; /* with more, the rounded weights could sum to a white of 256 */

/* One direction of the resize: an output pixel is the weighted sum of `taps` consecutive input pixels. */
struct axis {
    int count, taps;  /* output pixels; input pixels per output pixel, some with weight zero */
    int begin, end;   /* range of input pixels needed by any output pixel */
    int *start;       /* [count] first input pixel of each, relative to `begin` */
    union {
        int32_t *weights; /* [count][taps][copies] */
        float *shares;    /* [count][taps], with the area filter */
    };
};

/* One direction of the box, in decoded pixels: it starts `from` into pixel `first`, is `extent` long, and touches
 * `length` pixels. It is resized by a filter, with the area filter in a mode. */
struct span {
    int first, length;
    double from, extent;
    int filter, mode;
};

/* Span of a box whose pixels are decoded at 1 / `scale` of their size. */
static struct span span_of(int32_t begin, int32_t length, int scale, int filter)
{
    struct span span = {.first = begin / scale, .extent = (double)length / scale, .filter = filter};
    span.length = (int)(((int64_t)begin + length + scale - 1) / scale) - span.first;
    span.from = (double)(begin % scale) / scale;
    return span;
}

/* Filter support of one output pixel, in input pixels of the span. */
struct support {
    double center, scale; /* scale: of the filter, at least 1 */
    int first, count;
};

static struct support support_of(int output, const struct span *span, int resized)
{
    if (span->filter == AREA) {
        struct cell cell = cell_of(output, span->length, resized, span->mode);
        return (struct support){.first = cell.first, .count = cell.count};
    }
    double scale = span->extent / resized;
    struct support support = {.center = span->from + (output + 0.5) * scale, .scale = scale < 1.0 ? 1.0 : scale};
    double radius = span->filter == BICUBIC ? 2.0 * support.scale : support.scale;
    int first = (int)(support.center - radius + 0.5), end = (int)(support.center + radius + 0.5);
    support.first = first < 0 ? 0 : first;
    support.count = (end > span->length ? span->length : end) - support.first;
    return support;
}

/* Keys' cubic with a = -0.5, or a triangle. */
INLINE double filtered(double distance, int filter)
{
    if (distance < 0.0)
        distance = -distance;
    if (filter == BILINEAR)
        return distance < 1.0 ? 1.0 - distance : 0.0;
    if (distance < 1.0)
        return (1.5 * distance - 2.5) * distance * distance + 1.0;
    return distance < 2.0 ? (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5 : 0.0;
}

INLINE void compute_weights(struct support support, int filter, int copies, double *shares, int32_t *weights)
{
    double total = 0.0, slope = 1.0 / support.scale;
    for (int i = 0; i < support.count; i++) {
        shares[i] = filtered((i + support.first - support.center + 0.5) * slope, filter);
        total += shares[i];
    }
    for (int i = 0; i < support.count; i++)
        for (int copy = 0; copy < copies; copy++) {
            double share = total != 0.0 ? shares[i] / total : shares[i];
            double half = filter == BICUBIC && share < 0.0 ? -0.5 : 0.5;
            weights[i * copies + copy] = (int32_t)(half + share * (1 << PRECISION));
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
        int output = kept + (flip ? count - 1 - i : i);
        struct support support = support_of(output, span, resized);
        int last = length > axis->taps ? length - axis->taps : 0; /* at the end, zeros precede the weights */
        int start = support.first < last ? support.first : last;
        size_t skipped = (size_t)i * axis->taps + support.first - start;
        axis->start[i] = start;
        if (span->filter == AREA)
            compute_shares(cell_of(output, length, resized, span->mode), axis->shares + skipped);
        else if (span->filter == BICUBIC) /* compiled for each filter, or bilinear would pay for the test */
            compute_weights(support, BICUBIC, copies, shares, axis->weights + skipped * copies);
        else
            compute_weights(support, BILINEAR, copies, shares, axis->weights + skipped * copies);
    }
    free(shares);
    axis->begin = axis->start[flip ? count - 1 : 0];
    axis->end = axis->start[flip ? 0 : count - 1] + axis->taps;
    axis->end = axis->end > length ? length : axis->end;
    for (int i = 0; i < count; i++)
        axis->start[i] -= axis->begin;
    return 1;
}
