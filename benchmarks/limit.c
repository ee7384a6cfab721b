/* The fastest way for libjpeg-turbo to decode a box of a JPEG: skip the rows above, crop the columns, stop below.
 *
 * Nothing is resized or kept, so no decoder with the library's exact pixels at full size is faster on the same bytes.
 * (Coarser transforms, plain upsampling and decoding at half size are.)
 */
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

enum { NARROW = 64 }; /* narrower boxes are not cropped: chroma interpolation needs some samples */

struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    jmp_buf failed;
};

static void fail(j_common_ptr jpeg)
{
    longjmp(((struct reader *)jpeg->client_data)->failed, 1);
}

static void say_nothing(j_common_ptr jpeg, int level)
{
    (void)jpeg, (void)level;
}

/* Decode the rows top..top + height of `box` (top, left, height, width), and at least its columns, as RGB bytes.
 *
 * Rows are written `stride` bytes apart, or over each other with a stride of 0; each needs room for a full image row.
 * Sets the columns of `box` to those written. Returns 0 if the JPEG cannot be decoded.
 */
__attribute__((visibility("default"))) int decode_box(const uint8_t *data, size_t size, int32_t box[4], size_t stride,
                                                      uint8_t *out)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return 0;
    struct jpeg_decompress_struct *jpeg = &reader->jpeg;
    jpeg->err = jpeg_std_error(&reader->errors);
    reader->errors.error_exit = fail;
    reader->errors.emit_message = say_nothing;
    jpeg->client_data = reader;
    int done = 0;
    if (!setjmp(reader->failed)) {
        jpeg_create_decompress(jpeg);
        jpeg_mem_src(jpeg, data, size);
        jpeg_read_header(jpeg, TRUE);
        jpeg->out_color_space = JCS_RGB;
        jpeg_start_decompress(jpeg);
        JDIMENSION left = box[1], width = box[3];
        if (width < NARROW)
            left = 0, width = jpeg->output_width;
        jpeg_crop_scanline(jpeg, &left, &width);
        jpeg_skip_scanlines(jpeg, box[0]);
        for (int row = 0; row < box[2]; row++, out += stride)
            jpeg_read_scanlines(jpeg, &out, 1);
        box[1] = left;
        box[3] = width;
        done = 1;
    }
    jpeg_destroy_decompress(jpeg);
    free(reader);
    return done;
}
