/* libFuzzer's entry point: 16 bytes that choose a view, then a JPEG (fuzz_native.py). Our Huffman decoder and
 * libjpeg-turbo's must agree. */
#include "../../loaders/images/native/decode.c"

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
    return view;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int32_t shape[2];
    if (size < CHOICES + 2)
        return 0;
    size -= CHOICES;
    uint8_t *jpeg = malloc(size);
    memcpy(jpeg, data + CHOICES, size);
    memcpy(jpeg + size - 2, "\xFF\xD9", 2); /* the decoder rejects a file without an end marker */
    if (jpeg_shape(jpeg, size, shape)) {
        struct view view = view_of(data, shape);
        size_t bytes = (size_t)view.kept_rows * view.kept_columns * 3;
        uint8_t *out = malloc(bytes), *expected = malloc(bytes);
        int done = view_jpeg(jpeg, size, &view, out);
        view.libjpeg = 1;
        if (done != view_jpeg(jpeg, size, &view, expected) || (done && memcmp(out, expected, bytes)))
            abort();
        free(expected);
        free(out);
    }
    free(jpeg);
    return 0;
}
