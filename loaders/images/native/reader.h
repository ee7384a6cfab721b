/* Read a JPEG, or a view of it, with libjpeg-turbo and our Huffman decoder. Used by decode.c. */
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "resample.h" /* before scan.h, which needs PLAIN */

#include "scan.h"

#if LIBJPEG_TURBO_VERSION_NUMBER < 2001000 /* 0 for other libjpeg implementations, which cannot crop */
#error "libjpeg-turbo 2.1 or newer is needed: older versions' pixels have not been compared with Pillow's"
#endif

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
    struct huffman huffman;
};

static struct huffman *huffman_of(j_decompress_ptr jpeg)
{
    return &((struct reader *)jpeg->client_data)->huffman;
}

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
static void open_jpeg(struct reader *reader, const struct image *image)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    jpeg->err = jpeg_std_error(&reader->errors);
    reader->errors.error_exit = fail;
    reader->errors.emit_message = fail_if_warned;
    jpeg->client_data = reader;
    jpeg_create_decompress(jpeg);
    jpeg_mem_src(jpeg, image->data, image->size);
    jpeg_read_header(jpeg, TRUE);
}

/* Same as open_jpeg; returns whether the JPEG is of an ordinary kind. */
static int read_header(struct reader *reader, const struct image *image)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    const uint8_t *data = image->data;
    size_t size = image->size;
    /* Without the end marker the file may be truncated below the box, which decoding the box would not notice. */
    if (size < 4 || data[size - 2] != 0xFF || data[size - 1] != JPEG_EOI)
        return 0;
    open_jpeg(reader, image);
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
    if (view->scaled && view->filter != AREA && (jpeg->image_width >= LARGE || jpeg->image_height >= LARGE))
        while (scale < 8 && view->height / (2 * scale) >= view->rows && view->width / (2 * scale) >= view->columns)
            scale *= 2;
    return scale;
}

/* Decode a view with our Huffman decoder if `own`, else with libjpeg-turbo's. */
static int decode(struct reader *reader, const struct image *image, const struct view *view, uint8_t *out, int own)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    struct resizer *resizer = &reader->resizer;
    if (!is_within(view, jpeg->image_height, jpeg->image_width))
        return 0;
    int32_t rows = jpeg->image_height, columns = jpeg->image_width;
    struct view whole = *view; /* the unchanged image, by any filter */
    whole.top = whole.left = whole.top_row = whole.left_column = whole.flip = 0;
    whole.height = whole.rows = whole.kept_rows = rows;
    whole.width = whole.columns = whole.kept_columns = columns;
    int all = !memcmp(view, &whole, sizeof whole);
    jpeg->scale_denom = denominator_of(view, jpeg);
    if (!all && !open_resizer(resizer, view, jpeg->scale_denom, out))
        return 0;
    jpeg->out_color_space = all ? JCS_EXT_RGB : JCS_EXT_RGBX;
    jpeg_start_decompress(jpeg);
    if (is_incomplete(jpeg))
        return 0;
    JDIMENSION begin = resizer->left + resizer->across.begin;
    JDIMENSION offset = all ? 0 : crop_columns(jpeg, begin, resizer->left + resizer->across.end);
    if (own)
        open_huffman(&reader->huffman, jpeg, image, offset);
    for (; all && jpeg->output_scanline < jpeg->output_height; out += 3 * (size_t)view->columns)
        jpeg_read_scanlines(jpeg, &out, 1);
    if (all)
        return 1;
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

/* Write height and width to `shape`, and the view to `out`; either of `shape` and `view` may be NULL.
 *
 * Returns -1 if our Huffman decoder failed, else whether it is done.
 */
static int try_jpeg(const struct image *image, int32_t *shape, const struct view *view, uint8_t *out, int own)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return 0;
    if (setjmp(reader->failed)) {
        int failed = reader->huffman.active ? -1 : 0;
        close_reader(reader);
        return failed;
    }
    int done = read_header(reader, image);
    if (shape) {
        shape[0] = reader->jpeg.image_height;
        shape[1] = reader->jpeg.image_width;
    }
    done = done && (!view || decode(reader, image, view, out, own));
    close_reader(reader);
    return done;
}

/* Write the seek table of a JPEG, with an entry at every `every`-th column of MCUs, or if 0 at the start of each row.
 *
 * Returns its bytes, of which it writes none if they exceed `room`; 0 if the JPEG cannot have a table.
 */
static size_t make_seek_table(const struct image *image, size_t every, uint8_t *out, size_t room)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return 0;
    if (setjmp(reader->failed)) {
        close_reader(reader);
        return 0;
    }
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    struct huffman *huffman = &reader->huffman;
    size_t size = 0;
    if (read_header(reader, image) && jpeg_start_decompress(jpeg))
        open_huffman(huffman, jpeg, image, 0);
    if (huffman->active) {
        struct seek_header header = seek_header_of(jpeg->num_components, huffman->rows, huffman->columns, every);
        size_t bytes = seek_bytes(&header);
        size = bytes + sizeof(uint64_t);
        if (size <= room && !write_entries(huffman, header.every, header.components, out + sizeof header))
            size = 0;
        if (size && size <= room) {
            memcpy(out, &header, sizeof header);
            uint64_t sum = checksum(out, bytes, checksum(image->data, image->size, 0));
            memcpy(out + bytes, &sum, sizeof sum);
        }
    }
    close_reader(reader);
    return size;
}

/* Decode all rows, up to the end marker. Returns 0 if out of memory. */
static int read_whole(struct reader *reader, const struct image *image)
{
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    open_jpeg(reader, image);
    jpeg_start_decompress(jpeg);
    reader->row = malloc(jpeg->output_width * (size_t)jpeg->output_components);
    if (!reader->row)
        return 0;
    while (jpeg->output_scanline < jpeg->output_height)
        jpeg_read_scanlines(jpeg, &reader->row, 1);
    jpeg_finish_decompress(jpeg);
    return 1;
}
