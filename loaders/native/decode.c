/* One picture as a network wants it, in one pass: a box of a JPEG, resized and mirrored.
 *
 * Rows above the box are skipped, columns beside it are not transformed, rows below it are not read, and each row is
 * resized while it is in the cache. The pixels are, to the bit, those of decoding the whole JPEG with libjpeg-turbo's
 * defaults, as Pillow does, cutting the box out, and resizing it with Pillow's antialiased bilinear filter.
 *
 * Whatever is unusual is "not mine": the functions return 0, and the caller decodes it by other means, which also know
 * how to say what is wrong with it. Among this is everything that libjpeg-turbo so much as warns of: it would fill what
 * it cannot read with grey. No global state: any number of threads may decode at once.
 *
 * Called through ctypes by __init__.py beside this file, which has the same `struct view`.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#if LIBJPEG_TURBO_VERSION_NUMBER < 2001000 /* 0 for other libraries of this interface, which cannot crop */
#error "libjpeg-turbo 2.1 or newer is needed: the pixels of older ones have not been compared with Pillow's"
#endif

#define INTERFACE 2 /* a number that changes with the functions below: an old library beside new Python is not used */

#define EXPORTED __attribute__((visibility("default")))
#ifndef PLAIN
#define PLAIN 0 /* 1: without AVX2, to compare the two */
#endif

struct view {
    int32_t top, left, height, width;                      /* the box, in pixels of the picture */
    int32_t rows, columns;                                 /* the size to which the box is resized */
    int32_t top_row, left_column, kept_rows, kept_columns; /* what is wanted of that */
    int32_t flip;                                          /* whether what is wanted is mirrored */
    int32_t scaled;                                        /* whether large JPEGs may be decoded smaller: not exact */
};

/* A view of one picture of a batch. */
struct job {
    const uint8_t *data;
    size_t size;           /* bytes of a JPEG; 0 where these are pixels */
    int32_t height, width; /* of the pixels */
    struct view view;
    int32_t done; /* 0 where it was not mine */
    uint8_t *out;
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

/* Whether a view makes sense for a picture of this size. */
static int is_within(const struct view *view, int64_t height, int64_t width)
{
    return view->top >= 0 && view->left >= 0 && view->height > 0 && view->width > 0 &&
           (int64_t)view->top + view->height <= height && (int64_t)view->left + view->width <= width &&
           view->top_row >= 0 && view->left_column >= 0 && view->kept_rows > 0 && view->kept_columns > 0 &&
           (int64_t)view->top_row + view->kept_rows <= view->rows &&
           (int64_t)view->left_column + view->kept_columns <= view->columns;
}

/* ---- The JPEG ---- */

enum { MOST_PIXELS = 89478485 }; /* Pillow's limit; what libjpeg-turbo keeps of a progressive one is 6 bytes a pixel */
enum { MARGIN = 2 };             /* columns beside the box from which its own colours are interpolated */
/* Rows do not begin at a multiple of 32: to such addresses libjpeg-turbo writes past the cache (vmovntdq). */
enum { UNALIGNED = 4 };
enum { NARROW = 64 };            /* columns that are not cut: interpolation wants some samples of each colour */

struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    jmp_buf failed;
    struct resizer resizer;
    uint8_t *row;
};

static void fail(j_common_ptr jpeg)
{
    longjmp(((struct reader *)jpeg->client_data)->failed, 1);
}

static void fail_if_warned(j_common_ptr jpeg, int level)
{
    if (level < 0)
        fail(jpeg);
}

/* Read up to the first scan; whether this is one of the ordinary kinds. */
static int read_header(struct reader *reader, const uint8_t *data, size_t size)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    /* Bytes that end otherwise may have been cut short, below the box, where nobody would notice. */
    if (size < 4 || data[size - 2] != 0xFF || data[size - 1] != JPEG_EOI)
        return 0;
    jpeg->err = jpeg_std_error(&reader->errors);
    reader->errors.error_exit = fail;
    reader->errors.emit_message = fail_if_warned;
    jpeg->client_data = reader;
    jpeg_create_decompress(jpeg);
    jpeg_mem_src(jpeg, data, size);
    jpeg_read_header(jpeg, TRUE);
    return (jpeg->num_components == 1 || jpeg->num_components == 3) && jpeg->data_precision == 8 && !jpeg->arith_code &&
           (uint64_t)jpeg->image_width * jpeg->image_height <= MOST_PIXELS;
}

/* Whether some scan of a progressive JPEG is missing: what is then made up differs between libjpeg-turbo's versions. */
static int is_incomplete(const struct jpeg_decompress_struct *jpeg)
{
    for (int component = 0; jpeg->progressive_mode && component < jpeg->num_components; component++)
        for (int i = 0; i < DCTSIZE2; i++)
            if (jpeg->coef_bits[component][i] != 0)
                return 1;
    return 0;
}

/* Decode columns begin..end only, and some beside them; the column at which the rows begin. */
static JDIMENSION crop_columns(struct jpeg_decompress_struct *jpeg, JDIMENSION begin, JDIMENSION end)
{
    JDIMENSION from = begin > MARGIN ? begin - MARGIN : 0;
    JDIMENSION to = jpeg->output_width - end > MARGIN ? end + MARGIN : jpeg->output_width;
    JDIMENSION width = to - from;
    if (width < NARROW || width == jpeg->output_width)
        return 0;
    jpeg_crop_scanline(jpeg, &from, &width);
    return from;
}

#ifndef LARGE
#define LARGE 800 /* pixels of the longer side, from which on decoding smaller saves anything */
#endif

/* 1, 2, 4 or 8: how much smaller a picture is decoded, by the inverse transform itself. The steps between are slow. */
static int smaller_by(const struct view *view, const struct jpeg_decompress_struct *jpeg)
{
    int smaller = 1;
    if (view->scaled && (jpeg->image_width >= LARGE || jpeg->image_height >= LARGE))
        while (smaller < 8 && view->height / (2 * smaller) >= view->rows && view->width / (2 * smaller) >= view->columns)
            smaller *= 2;
    return smaller;
}

static int decode(struct reader *reader, const struct view *view, uint8_t *out)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    struct resizer *resizer = &reader->resizer;
    if (!is_within(view, jpeg->image_height, jpeg->image_width))
        return 0;
    jpeg->scale_denom = smaller_by(view, jpeg);
    if (!open_resizer(resizer, view, jpeg->scale_denom, out))
        return 0;
    jpeg->out_color_space = JCS_EXT_RGBX;
    jpeg_start_decompress(jpeg);
    if (is_incomplete(jpeg))
        return 0;
    JDIMENSION begin = resizer->left + resizer->across.begin;
    JDIMENSION offset = crop_columns(jpeg, begin, resizer->left + resizer->across.end);
    reader->row = calloc(UNALIGNED + 4 * ((size_t)jpeg->output_width + 1), 1);
    if (!reader->row)
        return 0;
    jpeg_skip_scanlines(jpeg, resizer->top + resizer->down.begin);
    for (int row = resizer->down.begin; row < resizer->down.end; row++) {
        JSAMPROW pixels = reader->row + UNALIGNED;
        jpeg_read_scanlines(jpeg, &pixels, 1);
        take(resizer, pixels + 4 * (size_t)(begin - offset));
    }
    return 1;
}

static void close_reader(struct reader *reader)
{
    jpeg_destroy_decompress(&reader->jpeg);
    close_resizer(&reader->resizer);
    free(reader->row);
    free(reader);
}

/* ---- The interface ---- */

EXPORTED int interface_version(void)
{
    return INTERFACE;
}

/* Height and width of a JPEG. Returns 0 if it is not mine. */
EXPORTED int jpeg_shape(const uint8_t *data, size_t size, int32_t shape[2])
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return 0;
    if (setjmp(reader->failed)) {
        close_reader(reader);
        return 0;
    }
    int mine = read_header(reader, data, size);
    shape[0] = reader->jpeg.image_height;
    shape[1] = reader->jpeg.image_width;
    close_reader(reader);
    return mine;
}

/* A view of a JPEG, uint8 [kept_rows, kept_columns, 3]. Returns 0, and leaves anything in `out`, if it is not mine. */
EXPORTED int view_jpeg(const uint8_t *data, size_t size, const struct view *view, uint8_t *out)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return 0;
    if (setjmp(reader->failed)) {
        close_reader(reader);
        return 0;
    }
    int mine = read_header(reader, data, size) && decode(reader, view, out);
    close_reader(reader);
    return mine;
}

/* The same of pixels, uint8 [height, width, 3]. Returns 0 where memory or the view's bounds do not suffice. */
EXPORTED int view_pixels(const uint8_t *pixels, int32_t height, int32_t width, const struct view *view, uint8_t *out)
{
    struct resizer resizer = {0};
    uint8_t *row = NULL;
    int done = is_within(view, height, width) && open_resizer(&resizer, view, 1, out);
    int columns = resizer.across.end - resizer.across.begin;
    done = done && (row = calloc(columns + 1, 4));
    for (int y = resizer.down.begin; done && y < resizer.down.end; y++) {
        const uint8_t *from = pixels + 3 * ((size_t)(view->top + y) * width + view->left + resizer.across.begin);
        for (int x = 0; x < columns; x++)
            memcpy(row + 4 * x, from + 3 * x, 3);
        take(&resizer, row);
    }
    close_resizer(&resizer);
    free(row);
    return done;
}

/* Jobs that several threads share: each takes the next that nobody has. */
struct queue {
    struct job *jobs;
    int count;
    atomic_int next;
};

static void *work(void *given)
{
    struct queue *queue = given;
    for (int i; (i = atomic_fetch_add(&queue->next, 1)) < queue->count;) {
        struct job *job = &queue->jobs[i];
        job->done = job->size ? view_jpeg(job->data, job->size, &job->view, job->out)
                              : view_pixels(job->data, job->height, job->width, &job->view, job->out);
    }
    return NULL;
}

/* Many at once, on this thread and `helpers` more; on fewer where the system gives no more. */
EXPORTED void view_batch(struct job *jobs, int count, int helpers)
{
    struct queue queue = {.jobs = jobs, .count = count};
    pthread_t *threads = calloc(helpers > 0 ? helpers : 1, sizeof *threads);
    int started = 0;
    while (threads && started < helpers && started < count - 1 && !pthread_create(&threads[started], NULL, work, &queue))
        started++;
    work(&queue);
    while (started > 0)
        pthread_join(threads[--started], NULL);
    free(threads);
}
