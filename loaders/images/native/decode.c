/* Decode, crop, resize and mirror a JPEG in one pass.
 *
 * Rows above the box are skipped, columns outside it are not transformed, rows below it are not read, and each row is
 * resized while it is in the cache. The pixels are identical to those of Pillow: decoding the whole JPEG with
 * libjpeg-turbo's defaults, cropping, and resizing with the antialiased bilinear filter.
 *
 * For unusual JPEGs the functions return 0, and the caller decodes them by other means, which also report what is
 * wrong. This includes every JPEG that libjpeg-turbo warns about, because it fills what it cannot read with gray. There
 * is no global state, so any number of threads may decode at once.
 *
 * Called through ctypes by __init__.py in this folder, which defines the same `struct job`.
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

#if LIBJPEG_TURBO_VERSION_NUMBER < 2001000 /* 0 for other libjpeg implementations, which cannot crop */
#error "libjpeg-turbo 2.1 or newer is needed: older versions' pixels have not been compared with Pillow's"
#endif

#define INTERFACE 3 /* raise it when the functions below change, so that Python rejects an older library */

#define EXPORTED __attribute__((visibility("default")))

/* One image of a batch. */
struct job {
    const uint8_t *data;
    size_t size;           /* bytes of a JPEG; 0 if `data` is pixels */
    int32_t height, width; /* of the pixels */
    struct view view;
    int32_t done; /* 0 if it must be decoded by other means */
    uint8_t *out;
};

/* ---- The JPEG ---- */

enum { MOST_PIXELS = 89478485 }; /* Pillow warns above it; progressive JPEGs take 6 bytes a pixel in libjpeg-turbo */
enum { MARGIN = 2 };             /* columns next to the box that chroma interpolation reads */
/* Offset of a row: libjpeg-turbo writes rows at multiples of 32 past the cache (vmovntdq). */
enum { UNALIGNED = 4 };
enum { NARROW = 64 }; /* fewer columns are not cropped, because chroma interpolation needs several samples */

struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    jmp_buf failed;
    struct resizer resizer;
    uint8_t *row;
    char *warning; /* buffer for the message, or NULL */
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

/* Read all headers before the first scan. */
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

/* Same as open_jpeg; returns whether the JPEG is of an ordinary kind. */
static int read_header(struct reader *reader, const uint8_t *data, size_t size)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    /* Without the end marker the file may be truncated below the box, which decoding the box would not notice. */
    if (size < 4 || data[size - 2] != 0xFF || data[size - 1] != JPEG_EOI)
        return 0;
    open_jpeg(reader, data, size);
    return (jpeg->num_components == 1 || jpeg->num_components == 3) && jpeg->data_precision == 8 && !jpeg->arith_code &&
           (uint64_t)jpeg->image_width * jpeg->image_height <= MOST_PIXELS;
}

/* Whether a progressive JPEG lacks scans; versions of libjpeg-turbo fill in different pixels for them. */
static int is_incomplete(const struct jpeg_decompress_struct *jpeg)
{
    for (int component = 0; jpeg->progressive_mode && component < jpeg->num_components; component++)
        for (int i = 0; i < DCTSIZE2; i++)
            if (jpeg->coef_bits[component][i] != 0)
                return 1;
    return 0;
}

/* Restrict decoding to about columns begin..end; returns the first column decoded. */
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
#define LARGE 800 /* pixels of the longer side from which scaled decoding is faster */
#endif

/* Denominator (1, 2, 4 or 8) of the size at which an image is decoded; libjpeg-turbo's other ratios are slow. */
static int denominator_of(const struct view *view, const struct jpeg_decompress_struct *jpeg)
{
    int scale = 1;
    if (view->scaled && (jpeg->image_width >= LARGE || jpeg->image_height >= LARGE))
        while (scale < 8 && view->height / (2 * scale) >= view->rows && view->width / (2 * scale) >= view->columns)
            scale *= 2;
    return scale;
}

static int decode(struct reader *reader, const struct view *view, uint8_t *out)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    struct resizer *resizer = &reader->resizer;
    if (!is_within(view, jpeg->image_height, jpeg->image_width))
        return 0;
    int32_t rows = jpeg->image_height, columns = jpeg->image_width;
    const struct view whole = {0, 0, rows, columns, rows, columns, 0, 0, rows, columns, 0, view->scaled};
    int all = !memcmp(view, &whole, sizeof whole); /* the unchanged image */
    jpeg->scale_denom = denominator_of(view, jpeg);
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
        add_row(resizer, pixels + 4 * (size_t)(begin - offset));
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

/* Write height and width to `shape`, and the view to `out`; either of `shape` and `view` may be NULL. */
static int read_jpeg(const uint8_t *data, size_t size, int32_t *shape, const struct view *view, uint8_t *out)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return 0;
    if (setjmp(reader->failed)) {
        close_reader(reader);
        return 0;
    }
    int done = read_header(reader, data, size);
    if (shape) {
        shape[0] = reader->jpeg.image_height;
        shape[1] = reader->jpeg.image_width;
    }
    done = done && (!view || decode(reader, view, out));
    close_reader(reader);
    return done;
}

/* Decode all rows, up to the end marker. Returns 0 if out of memory. */
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

/* Height and width of a JPEG. Returns 0 if it must be decoded by other means. */
EXPORTED int jpeg_shape(const uint8_t *data, size_t size, int32_t shape[2])
{
    return read_jpeg(data, size, shape, NULL, NULL);
}

/* View of a JPEG, uint8 [kept_rows, kept_columns, 3]. Returns 0, and leaves `out` undefined, if it must be decoded by
 * other means. */
EXPORTED int view_jpeg(const uint8_t *data, size_t size, const struct view *view, uint8_t *out)
{
    return read_jpeg(data, size, NULL, view, out);
}

/* Decode all of a JPEG of any kind. Returns 1 if libjpeg-turbo does not warn, else 0 with its first warning in
 * `warning`, which is left unchanged if it cannot decode the JPEG. */
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

/* View of pixels, uint8 [height, width, 3]. Returns 0 if out of memory, or if the view exceeds the image. */
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
        add_row(&resizer, row);
    }
    close_resizer(&resizer);
    free(row);
    return done;
}

/* Jobs shared by several threads; each thread takes the next one. */
struct queue {
    struct job *jobs;
    int count;
    atomic_int next;
};

static void *work(void *argument)
{
    struct queue *queue = argument;
    for (int i; (i = atomic_fetch_add(&queue->next, 1)) < queue->count;) {
        struct job *job = &queue->jobs[i];
        job->done = job->size ? view_jpeg(job->data, job->size, &job->view, job->out)
                              : view_pixels(job->data, job->height, job->width, &job->view, job->out);
    }
    return NULL;
}

/* Run many jobs on this thread and up to `helpers` more, as many as the system allows. */
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
