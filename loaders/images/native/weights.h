/* Weights of Pillow's antialiased bilinear filter, in fixed point (src/libImaging/Resample.c). Used by resample.h. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

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
