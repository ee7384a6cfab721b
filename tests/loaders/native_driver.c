/* Decode every file in an archive and print the result of each; run it under sanitizers. Aborts if our Huffman decoder
 * and libjpeg-turbo's differ, with or without a seek table. */
#include "../../loaders/images/native/decode.c"

#include "seek_checks.h"

/* FNV-1a hash. */
static uint64_t hash_of(const uint8_t *bytes, size_t count)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

enum { VIEWS = 4 };

/* Decode a few views of an image, whatever size it claims: one by one, and all at once in three threads. */
static void look(const uint8_t *data, size_t size, int number)
{
    static uint64_t changes[64]; /* of seek tables: few at first, then many */
    const struct image image = {data, size, NULL, 0};
    int32_t shape[2] = {0, 0};
    int mine = jpeg_shape(data, size, shape);
    struct job jobs[VIEWS];
    size_t bytes[VIEWS];
    printf("%d: %d", number, mine);
    for (int i = 0; mine && i < VIEWS; i++) {
        int32_t top = shape[0] * i / 5, left = shape[1] * (3 - i) / 7;
        int32_t height = (shape[0] - top) / (i + 1) + 1, width = (shape[1] - left) / (4 - i) + 1;
        height = height > shape[0] - top ? shape[0] - top : height;
        width = width > shape[1] - left ? shape[1] - left : width;
        struct view view = {top, left, height, width, 31, 17 + i, i, 2 * i, 31 - 3 * i, 17 - 2 * i, i & 1, i >> 1, 0, i % FILTERS};
        bytes[i] = (size_t)view.kept_rows * view.kept_columns * 3;
        jobs[i] = (struct job){.image = image, .view = view, .out = malloc(bytes[i])};
        view.libjpeg = 1;
        int expected = view_jpeg(&image, &view, jobs[i].out);
        uint64_t hash = hash_of(jobs[i].out, expected ? bytes[i] : 0);
        view.libjpeg = 0;
        int seen = view_jpeg(&image, &view, jobs[i].out);
        if (seen != expected || hash != hash_of(jobs[i].out, seen ? bytes[i] : 0))
            abort();
        changes[(number * 7 + i) % 64] += 2654435761u * (uint64_t)(number + 1) << (number + 5 * i) % 32;
        check_tables(&image, &view, seen, jobs[i].out, i, (uint8_t *)changes, sizeof changes);
        printf(" %d %llx", seen, seen ? (unsigned long long)hash_of(jobs[i].out, bytes[i]) : 0);
    }
    if (mine)
        view_batch(jobs, VIEWS, 2);
    for (int i = 0; mine && i < VIEWS; i++) {
        printf(" %d %llx", jobs[i].done, jobs[i].done ? (unsigned long long)hash_of(jobs[i].out, bytes[i]) : 0);
        free(jobs[i].out);
    }
    char warning[JMSG_LENGTH_MAX] = "";
    if (mine && jpeg_warning(data, size, warning) && *warning)
        abort(); /* a clean image has no warning */
    putchar('\n');
}

/* Draw random words into arrays of the exact size. */
static void draw(int count)
{
    uint64_t *seeds = calloc(count, sizeof *seeds);
    uint32_t *out = malloc(sizeof *out * count * MOST_WORDS);
    if (!random_words(seeds, count, MOST_WORDS, out) || out[0] != out[(count - 1) * MOST_WORDS])
        abort();
    free(out);
    free(seeds);
}

/* Usage: native_driver ARCHIVE, a sequence of files, each after its length in 4 bytes of native byte order. */
int main(int count, char **words)
{
    if (!has_own_huffman)
        return 2;
    draw(1);
    draw(ABREAST + 1);
    FILE *archive = count == 2 ? fopen(words[1], "rb") : NULL;
    if (!archive)
        return 2;
    uint32_t size;
    for (int number = 0; fread(&size, sizeof size, 1, archive) == 1; number++) {
        uint8_t *data = malloc(size); /* exact size: sanitizers notice reads past the end */
        if (fread(data, 1, size, archive) != size)
            return 2;
        look(data, size, number);
        free(data);
    }
    fclose(archive);
    return 0;
}
