/* Seek tables: where in a JPEG's scan decoding may start. Used by huffman.h.
 *
 * A table is stored next to its JPEG, which stays as it is. It holds, in the byte order of the machine, a header, an
 * entry per row of MCUs or more, and a checksum of all of it and of the JPEG. With the table of another JPEG, or a
 * damaged one, decoding goes on without.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SEEK_VERSION = 1 };

/* An encoded image, and its seek table if `table_size` is not 0. */
struct image {
    const uint8_t *data;
    size_t size;
    const uint8_t *table;
    size_t table_size;
};

struct seek_header {
    uint8_t version, components;
    uint16_t every;   /* columns of MCUs between entries; each row starts with one */
    uint32_t entries; /* in the order of the scan */
};

/* The decoder's state before an MCU. A stored entry ends after the DC coefficients of the JPEG's components. */
struct seek_entry {
    uint32_t bit; /* of the scan's bytes as they are in the file */
    int16_t dc[3];
};

struct seek_table {
    const uint8_t *entries; /* NULL without a table */
    size_t stride;          /* bytes of an entry */
    size_t every, per_row, count;
};

/* ---- The checksum ---- */

static inline uint64_t product_of(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

enum { PRODUCTS = 4, HASHED = 16 * PRODUCTS }; /* independent products, so that they overlap; bytes per step */
static const uint64_t secret[2] = {0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F}; /* odd, with bits in no order */

static inline void add_step(uint64_t lanes[PRODUCTS], const uint8_t *bytes)
{
    uint64_t words[2 * PRODUCTS];
    memcpy(words, bytes, HASHED);
    for (int i = 0; i < PRODUCTS; i++)
        lanes[i] = product_of(words[2 * i] ^ secret[0], words[2 * i + 1] ^ lanes[i]);
}

/* 64-bit hash. Accidents do not go unnoticed; anyone who can choose the bytes can forge it. */
static uint64_t checksum(const uint8_t *bytes, size_t size, uint64_t seed)
{
    uint64_t hash = product_of(seed ^ secret[0], size ^ secret[1]);
    uint64_t lanes[PRODUCTS] = {hash, hash + 1, hash + 2, hash + 3};
    uint8_t rest[HASHED] = {0};
    size_t whole = size / HASHED * HASHED;
    for (size_t at = 0; at < whole; at += HASHED)
        add_step(lanes, bytes + at);
    memcpy(rest, bytes + whole, size - whole);
    add_step(lanes, rest);
    for (int i = 0; i < PRODUCTS; i++)
        hash = product_of(hash ^ secret[1], lanes[i] ^ secret[0]);
    return hash;
}

/* ---- The format ---- */

/* What the header of a table must be. */
static struct seek_header seek_header_of(int components, size_t rows, size_t columns, size_t every)
{
    every = every && every < columns ? every : columns;
    return (struct seek_header){SEEK_VERSION, components, every, rows * ((columns + every - 1) / every)};
}

static size_t stride_of(int components)
{
    return offsetof(struct seek_entry, dc) + components * sizeof(int16_t);
}

/* Bytes of a table without its checksum. */
static size_t seek_bytes(const struct seek_header *header)
{
    return sizeof *header + header->entries * stride_of(header->components);
}

static struct seek_entry seek_entry_of(const struct seek_table *table, size_t index)
{
    struct seek_entry entry = {0};
    memcpy(&entry, table->entries + index * table->stride, table->stride);
    return entry;
}

/* Open the table of a JPEG, whose scan has this many bytes and MCUs. Leaves `table` empty if it is not its table. */
static void open_seek_table(struct seek_table *table, const struct image *image, size_t scan_size, int components,
                            size_t rows, size_t columns)
{
    const uint8_t *stored = image->table;
    struct seek_header header;
    uint64_t sum;
    if (image->table_size < sizeof header + sizeof sum)
        return;
    memcpy(&header, stored, sizeof header);
    struct seek_header expected = seek_header_of(components, rows, columns, header.every);
    size_t bytes = seek_bytes(&expected);
    if (memcmp(&header, &expected, sizeof header) || image->table_size != bytes + sizeof sum)
        return;
    memcpy(&sum, stored + bytes, sizeof sum);
    if (sum != checksum(stored, bytes, checksum(image->data, image->size, 0)))
        return;
    struct seek_table opened = {stored + sizeof header, stride_of(components), header.every, header.entries / rows,
                                header.entries};
    for (size_t i = 0, last = 0; i < opened.count; i++) {
        size_t bit = seek_entry_of(&opened, i).bit;
        if (bit < last || bit >= 8 * scan_size)
            return;
        last = bit;
    }
    *table = opened;
}
