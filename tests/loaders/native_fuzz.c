/* libFuzzer's entry point (fuzz_native.py): 16 bytes that choose a view and a table's kind and length, changes of a
 * seek table, and a JPEG. Our Huffman decoder and libjpeg-turbo's must agree, with and without a table.
 *
 * If TABLE_ALONE is defined, the JPEG is always the one of the self-test.
 */
#include "../../loaders/images/native/decode.c"

#include "seek_checks.h"

enum { CHOICES = 16 };

/* A box, a size and a part of it, inside an image of this shape; sometimes out of bounds. */
static struct view view_of(const uint8_t *choices, const int32_t shape[2])
{
    struct view view = {0};
    view.top = (int32_t)((int64_t)shape[0] * choices[0] / 250);
    view.left = (int32_t)((int64_t)shape[1] * choices[1] / 250);
    view.height = (int32_t)((int64_t)(shape[0] - view.top) * choices[2] / 250);
    view.width = (int32_t)((int64_t)(shape[1] - view.left) * choices[3] / 250);
    view.rows = choices[4] + 1;
    view.columns = choices[5] + 1;
    view.top_row = choices[6] % view.rows;
    view.left_column = choices[7] % view.columns;
    view.kept_rows = choices[8] % (view.rows - view.top_row) + 1;
    view.kept_columns = choices[9] % (view.columns - view.left_column) + 1;
    view.flip = choices[10] & 1;
    view.scaled = choices[11] & 1;
    view.filter = choices[13] % (FILTERS + 1); /* one too many */
    return view;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int32_t shape[2];
    if (size < CHOICES + 2)
        return 0;
    const uint8_t *changes = data + CHOICES;
    size -= CHOICES;
#ifdef TABLE_ALONE
    size_t count = size;
    struct image image = {test_image, sizeof test_image, NULL, 0};
#else
    size_t count = data[14] + 256 * data[15];
    count = count < size - 2 ? count : size - 2;
    size -= count;
    uint8_t *jpeg = malloc(size);
    memcpy(jpeg, changes + count, size);
    memcpy(jpeg + size - 2, "\xFF\xD9", 2); /* the decoder rejects a file without an end marker */
    struct image image = {jpeg, size, NULL, 0};
#endif
    if (jpeg_shape(image.data, image.size, shape)) {
        struct view view = view_of(data, shape);
        size_t bytes = (size_t)view.kept_rows * view.kept_columns * 3;
        uint8_t *out = malloc(bytes), *expected = malloc(bytes);
        int done = view_jpeg(&image, &view, out);
        view.libjpeg = 1;
        if (done != view_jpeg(&image, &view, expected) || (done && memcmp(out, expected, bytes)))
            abort();
        view.libjpeg = 0;
        check_tables(&image, &view, done, expected, data[12], changes, count);
        free(expected);
        free(out);
    }
#ifndef TABLE_ALONE
    free(jpeg);
#endif
    return 0;
}
