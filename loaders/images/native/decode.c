/* One image as a network wants it, in one pass: a box of a JPEG, resized and mirrored.
 *
 * Rows above the box are skipped, columns beside it are not transformed, rows below it are not read, and each row is
 * resized while it is in the cache. The pixels are, to the bit, those of decoding the whole JPEG with libjpeg-turbo's
 * defaults, as Pillow does, cutting the box out, and resizing it with Pillow's antialiased bilinear filter.
 *
 * Whatever is unusual is "not mine": the functions return 0, and the caller decodes it by other means, which also know
 * how to say what is wrong with it. Among this is everything that libjpeg-turbo so much as warns of: it would fill what
 * it cannot read with grey. No global state: any number of threads may decode at once.
 *
 * Called through ctypes by __init__.py beside this file, which has the same `struct job`.
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

#include "resample.h"

#if LIBJPEG_TURBO_VERSION_NUMBER < 2001000 /* 0 for other libraries of this interface, which cannot crop */
#error "libjpeg-turbo 2.1 or newer is needed: the pixels of older ones have not been compared with Pillow's"
#endif

#define INTERFACE 3 /* a number that changes with the functions below: an old library beside new Python is not used */

#define EXPORTED __attribute__((visibility("default")))

/* A view of one image of a batch. */
struct job {
    const uint8_t *data;
    size_t size;           /* bytes of a JPEG; 0 where these are pixels */
    int32_t height, width; /* of the pixels */
    struct view view;
    int32_t done; /* 0 where it was not mine */
    uint8_t *out;
};

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
    char *warning; /* where the words go */
};

static void fail(j_common_ptr jpeg)
{
    longjmp(((struct reader *)jpeg->client_data)->failed, 1);
}

static void fail_if_warned(j_common_ptr jpeg, int level)
{
    char *warning = ((struct reader *)jpeg->client_data)->warning;
    if (level < 0 && warning)
        jpeg->err->format_message(jpeg, warning);
    if (level < 0)
        fail(jpeg);
}

/* Read up to the first scan. */
static void open_jpeg(struct reader *reader, const uint8_t *data, size_t size)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    jpeg->err = jpeg_std_error(&reader->errors);
    reader->errors.error_exit = fail;
    reader->errors.emit_message = fail_if_warned;
    jpeg->client_data = reader;
    jpeg_create_decompress(jpeg);
    jpeg_mem_src(jpeg, data, size);
    jpeg_read_header(jpeg, TRUE);
}

/* The same; whether this is one of the ordinary kinds. */
static int read_header(struct reader *reader, const uint8_t *data, size_t size)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    /* Bytes that end otherwise may have been cut short, below the box, where nobody would notice. */
    if (size < 4 || data[size - 2] != 0xFF || data[size - 1] != JPEG_EOI)
        return 0;
    open_jpeg(reader, data, size);
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

/* 1, 2, 4 or 8: how much smaller an image is decoded, by the inverse transform itself. The steps between are slow. */
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
    int32_t rows = jpeg->image_height, columns = jpeg->image_width;
    const struct view whole = {0, 0, rows, columns, rows, columns, 0, 0, rows, columns, 0, view->scaled};
    int all = !memcmp(view, &whole, sizeof whole); /* the image as it is */
    jpeg->scale_denom = smaller_by(view, jpeg);
    if (!all && !open_resizer(resizer, view, jpeg->scale_denom, out))
        return 0;
    jpeg->out_color_space = all ? JCS_EXT_RGB : JCS_EXT_RGBX;
    jpeg_start_decompress(jpeg);
    if (is_incomplete(jpeg))
        return 0;
    for (; all && jpeg->output_scanline < jpeg->output_height; out += 3 * (size_t)view->columns)
        jpeg_read_scanlines(jpeg, &out, 1);
    if (all)
        return 1;
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

/* Its height and width in `shape`, where that is not NULL, and a view of it, where that is not NULL. */
static int read_jpeg(const uint8_t *data, size_t size, int32_t *shape, const struct view *view, uint8_t *out)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return 0;
    if (setjmp(reader->failed)) {
        close_reader(reader);
        return 0;
    }
    int mine = read_header(reader, data, size);
    if (shape) {
        shape[0] = reader->jpeg.image_height;
        shape[1] = reader->jpeg.image_width;
    }
    mine = mine && (!view || decode(reader, view, out));
    close_reader(reader);
    return mine;
}

/* Decode all of it, to the end's marker; 0 for want of memory. */
static int read_whole(struct reader *reader, const uint8_t *data, size_t size)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    open_jpeg(reader, data, size);
    jpeg_start_decompress(jpeg);
    reader->row = malloc(jpeg->output_width * (size_t)jpeg->output_components);
    if (!reader->row)
        return 0;
    while (jpeg->output_scanline < jpeg->output_height)
        jpeg_read_scanlines(jpeg, &reader->row, 1);
    jpeg_finish_decompress(jpeg);
    return 1;
}

/* ---- The interface ---- */

EXPORTED int interface_version(void)
{
    return INTERFACE;
}

/* Height and width of a JPEG. Returns 0 if it is not mine. */
EXPORTED int jpeg_shape(const uint8_t *data, size_t size, int32_t shape[2])
{
    return read_jpeg(data, size, shape, NULL, NULL);
}

/* A view of a JPEG, uint8 [kept_rows, kept_columns, 3]. Returns 0, and leaves anything in `out`, if it is not mine. */
EXPORTED int view_jpeg(const uint8_t *data, size_t size, const struct view *view, uint8_t *out)
{
    return read_jpeg(data, size, NULL, view, out);
}

/* Decode all of a JPEG of any kind. Returns 1 if libjpeg-turbo has nothing to say against it, else 0: what it first
 * warns of is then in `warning`, which is left as it is where it does not even decode it. */
EXPORTED int jpeg_warning(const uint8_t *data, size_t size, char warning[JMSG_LENGTH_MAX])
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return 0;
    reader->warning = warning;
    if (setjmp(reader->failed)) {
        close_reader(reader);
        return 0;
    }
    int whole = read_whole(reader, data, size);
    close_reader(reader);
    return whole;
}

/* A view of pixels, uint8 [height, width, 3]. Returns 0 where memory or the view's bounds do not suffice. */
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
