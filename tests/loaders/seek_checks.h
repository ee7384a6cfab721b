/* Checks of seek tables for native_driver.c and native_fuzz.c, which include decode.c before. */

/* Write a table with the header and the checksum that a JPEG's table must have. Its entries are those of the JPEG's
 * own table, or 0 if it has none, XORed with `changes`. Returns its bytes, 0 if a JPEG cannot have one. */
static size_t forge_table(const struct image *image, size_t every, const uint8_t *changes, size_t count, uint8_t **table)
{
    struct reader *reader = calloc(1, sizeof *reader);
    volatile size_t bytes = 0;
    *table = NULL;
    if (setjmp(reader->failed)) {
        close_reader(reader);
        return 0;
    }
    if (read_header(reader, image) && jpeg_start_decompress(&reader->jpeg))
        open_huffman(&reader->huffman, &reader->jpeg, image, 0);
    if (reader->huffman.active) {
        const struct huffman *huffman = &reader->huffman;
        struct seek_header header =
            seek_header_of(reader->jpeg.num_components, huffman->rows, huffman->columns, every);
        bytes = seek_bytes(&header);
        *table = calloc(bytes + sizeof(uint64_t), 1);
        memcpy(*table, &header, sizeof header);
    }
    close_reader(reader);
    if (!bytes)
        return 0;
    make_seek_table(image, every, *table, bytes + sizeof(uint64_t));
    for (size_t i = 0; i < count && i < bytes - sizeof(struct seek_header); i++)
        (*table)[sizeof(struct seek_header) + i] ^= changes[i];
    uint64_t sum = checksum(*table, bytes, checksum(image->data, image->size, 0));
    memcpy(*table + bytes, &sum, sizeof sum);
    return bytes + sizeof sum;
}

/* Abort unless a view with this table is `done` as without it, with the pixels `expected`. */
static void check_same(const struct image *image, const uint8_t *table, size_t size, const struct view *view, int done,
                       const uint8_t *expected)
{
    struct image with_table = {image->data, image->size, table, size};
    size_t bytes = (size_t)view->kept_rows * view->kept_columns * 3;
    uint8_t *out = malloc(bytes);
    if (view_jpeg(&with_table, view, out) != done || (done && memcmp(out, expected, bytes)))
        abort();
    free(out);
}

/* Abort unless the JPEG's own table changes nothing, and another one is ignored. A forged one may give any pixels. */
static void check_tables(const struct image *image, const struct view *view, int done, const uint8_t *expected,
                         size_t every, const uint8_t *changes, size_t count)
{
    size_t size = make_seek_table(image, every, NULL, 0);
    uint8_t *table = malloc(size);
    if (size && make_seek_table(image, every, table, size)) { /* never for a damaged JPEG, so that both are `done` */
        struct image with_table = {image->data, image->size, table, size};
        uint8_t *out = malloc((size_t)view->kept_rows * view->kept_columns * 3);
        if (!view->libjpeg && try_jpeg(&with_table, NULL, view, out, 1) != done)
            abort(); /* would be slower: libjpeg-turbo's decoder starts over */
        free(out);
        check_same(image, table, size, view, done, expected);
    }
    free(table);
    size = forge_table(image, every, changes, count, &table);
    if (size) {
        struct image forged = {image->data, image->size, table, size};
        uint8_t *out = malloc((size_t)view->kept_rows * view->kept_columns * 3);
        view_jpeg(&forged, view, out);
        free(out);
        table[size - 1] ^= 1;
        check_same(image, table, size, view, done, expected);
    }
    free(table);
    check_same(image, changes, count, view, done, expected);
}
