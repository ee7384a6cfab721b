/* A JPEG encoder with every kind of subsampling (Pillow has three), for tests. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

struct options {
    int32_t height, width, channels; /* 1, 3 or 4 (CMYK) */
    int32_t across, down;            /* subsampling factors of chroma relative to luma */
    int32_t quality, progressive, optimized;
    int32_t restart_rows; /* block rows between restart markers, or 0 */
    int32_t keep_rgb;     /* store RGB, not YCbCr */
    int32_t arithmetic;
};

/* Encode uint8 [height, width, channels] into `out` of `room` bytes. Returns the size. */
size_t encode(const uint8_t *pixels, const struct options *options, uint8_t *out, size_t room)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned long size = room;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &out, &size);
    jpeg.image_height = options->height;
    jpeg.image_width = options->width;
    jpeg.input_components = options->channels;
    jpeg.in_color_space = options->channels == 1 ? JCS_GRAYSCALE : options->channels == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&jpeg);
    if (options->keep_rgb)
        jpeg_set_colorspace(&jpeg, JCS_RGB);
    jpeg_set_quality(&jpeg, options->quality, TRUE);
    jpeg.comp_info[0].h_samp_factor = options->across;
    jpeg.comp_info[0].v_samp_factor = options->down;
    jpeg.restart_in_rows = options->restart_rows;
    jpeg.optimize_coding = options->optimized;
    jpeg.arith_code = options->arithmetic;
    if (options->progressive)
        jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        JSAMPROW row = (JSAMPROW)pixels + (size_t)jpeg.next_scanline * options->width * options->channels;
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    return size;
}
