/* Decode, crop, resize and mirror a JPEG in one pass.
 *
 * Rows above the box are skipped, columns outside it are not transformed, rows below it are not read, and each row is
 * resized while it is in the cache. Our own Huffman decoder reads baseline JPEGs. The pixels are identical to those of
 * Pillow: decoding the whole JPEG with libjpeg-turbo's defaults, cropping, and resizing with an antialiased filter, or
 * with OpenCV's INTER_AREA.
 *
 * For unusual JPEGs the functions return 0, and the caller decodes them by other means, which also report what is
 * wrong. This includes every JPEG that libjpeg-turbo warns about, because it fills what it cannot read with gray. There
 * is no global state but the result of the self-test, so any number of threads may decode at once.
 *
 * Called through ctypes by __init__.py in this folder, which defines the same `struct job`.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "self_test.h"

#define INTERFACE 6 /* raise it when the functions below change, so that Python rejects an older library */

#define EXPORTED __attribute__((visibility("default")))

/* One image of a batch. */
struct job {
    struct image image;    /* size 0 if its data are pixels */
    int32_t height, width; /* of a JPEG set by batch_shapes: 0 if it must be decoded by other means */
    struct view view;
    int32_t done; /* 0 if it must be decoded by other means */
    uint8_t *out;
};

/* ---- The interface ---- */

EXPORTED int interface_version(void)
{
    return INTERFACE;
}

/* Name of the Huffman decoder in use, for the record of a run. */
EXPORTED const char *huffman_decoder(void)
{
    return huffman_name();
}

/* Height and width of a JPEG. Returns 0 if it must be decoded by other means. */
EXPORTED int jpeg_shape(const uint8_t *data, size_t size, int32_t shape[2])
{
    return read_jpeg(&(struct image){data, size, NULL, 0}, shape, NULL, NULL);
}

/* View of a JPEG, uint8 [kept_rows, kept_columns, 3]. Returns 0, and leaves `out` undefined, if it must be decoded by
 * other means. */
EXPORTED int view_jpeg(const struct image *image, const struct view *view, uint8_t *out)
{
    return read_jpeg(image, NULL, view, out);
}

/* Seek table of a JPEG, with an entry at every `every`-th MCU of a row, or one per row if 0. Returns its bytes, of which
 * none are written if they exceed `room`; 0 for a JPEG without one, such as a progressive or a damaged one. */
EXPORTED size_t seek_table(const uint8_t *data, size_t size, size_t every, uint8_t *table, size_t room)
{
    return has_own_huffman ? make_seek_table(&(struct image){data, size, NULL, 0}, every, table, room) : 0;
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
    int whole = read_whole(reader, &(struct image){data, size, NULL, 0});
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
        job->done = job->image.size ? view_jpeg(&job->image, &job->view, job->out)
                                    : view_pixels(job->image.data, job->height, job->width, &job->view, job->out);
    }
    return NULL;
}

/* Read the shapes of the JPEGs of many jobs. */
EXPORTED void batch_shapes(struct job *jobs, int count)
{
    for (struct job *job = jobs; job < jobs + count; job++) {
        int32_t shape[2];
        if (job->image.size && jpeg_shape(job->image.data, job->image.size, shape))
            job->height = shape[0], job->width = shape[1];
    }
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

/* The first `n` outputs of torch's CPU generator for each of `count` seeds, into out[count][n]. Returns 0, and leaves
 * `out` undefined, if n exceeds MOST_WORDS. */
EXPORTED int random_words(const uint64_t *seeds, int32_t count, int32_t n, uint32_t *out)
{
    if (n < 0 || n > MOST_WORDS)
        return 0;
    first_words(seeds, count, n, out);
    return 1;
}
