/* Huffman decoder for the MCUs of baseline JPEGs. Used by scan.h, which puts it in the place of libjpeg-turbo's.
 *
 * It is faster for three reasons: stuffed bytes are removed ahead of the reader, so that refilling its 64 bits needs no
 * test; one look-up decodes up to two coefficients; and outside the crop, one look-up skips as many as fit.
 *
 * It accepts fewer JPEGs than libjpeg-turbo: on damage, or anything else unexpected, it calls `error_exit`, after which
 * libjpeg-turbo decodes the JPEG again from the start. All other JPEGs have the same coefficients.
 */
#include "huffman_tables.h"

#include "seek_table.h"

enum { MCU_MOST = 4096 }; /* bytes, more than those of an MCU: 10 blocks of 64 coefficients of at most 31 bits */
enum { CHUNK = 8192 };    /* bytes of the file that are unstuffed at a time */

/* Where in the scan the decoder is; any MCU can be decoded from here. */
struct position {
    size_t mcu;             /* the next one */
    const uint8_t *segment; /* the first byte after the last restart marker, or of the scan */
    const uint8_t *input;   /* the next byte of the file to unstuff */
    int stopped;            /* whether a marker or the end of the file is there */
    size_t removed;         /* unstuffed bytes of the segment before those in `plain` */
    size_t filled;          /* bytes in `plain` */
    size_t bit;             /* the next bit of `plain` */
    int32_t dc[4];          /* the components' last DC coefficients */
    unsigned restarts;      /* markers so far */
    unsigned mcus;          /* MCUs since the last one */
};

struct huffman {
    struct position position;
    int active;
    const uint8_t *begin, *end, *until; /* of the scan, of the file, and of the bytes to unstuff */
    unsigned interval;                  /* MCUs between restart markers, or 0 */
    int blocks;                         /* of an MCU */
    int component[D_MAX_BLOCKS_IN_MCU];
    const struct huffman_table *dc[D_MAX_BLOCKS_IN_MCU], *ac[D_MAX_BLOCKS_IN_MCU];
    size_t columns, rows;       /* of MCUs */
    size_t mcu, column;         /* that libjpeg-turbo asks for next */
    size_t first, last;         /* columns whose values are needed */
    struct seek_table table;
    int (*keep)(struct huffman *, JBLOCKROW *), (*skip)(struct huffman *, JBLOCKROW *);
    uint8_t plain[MCU_MOST + CHUNK + MCU_MOST]; /* unstuffed; a damaged MCU may be read past `filled` */
};

/* ---- Bits ---- */

struct bits {
    uint64_t word;       /* the next bit is the highest */
    unsigned left;       /* how many of them count */
    const uint8_t *next; /* the bytes after these */
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Make at least 56 bits available. */
ALWAYS_INLINE void refill(struct bits *bits)
{
    uint64_t word;
    memcpy(&word, bits->next, sizeof word);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    bits->word |= word >> bits->left;
    bits->next += (63 - bits->left) >> 3;
    bits->left |= 56;
}

ALWAYS_INLINE void consume(struct bits *bits, unsigned count)
{
    bits->word <<= count;
    bits->left -= count;
}

/* Read a symbol and its value, at most 31 bits; returns -1 if there is no such code. */
ALWAYS_INLINE int read_symbol(struct bits *bits, const struct huffman_table *table, int *value)
{
    int code = table->codes[bits->word >> (64 - LOOKUP_BITS)];
    if (!code && !(code = long_code(table, bits->word)))
        return -1;
    int size = code & 15;
    consume(bits, code >> 8);
    *value = value_of(bits->word, size);
    consume(bits, size);
    return code & 255;
}

/* ---- An MCU ---- */

/* From 64 on, index 0: values past the end of a block are overwritten by its DC coefficient. */
static const uint8_t zigzag[2 * DCTSIZE2] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

/* Decode the AC coefficients of a block, which is not used unless `keep`. Returns 0 on damage. */
ALWAYS_INLINE int decode_ac(struct bits *bits, const struct huffman_table *table, JCOEF *block, int keep)
{
    for (unsigned k = 1; k < DCTSIZE2;) {
        unsigned advance, length;
        refill(bits);
        for (int step = 0; step < (keep ? 56 / LOOKUP_BITS : 56 / SKIP_MOST); step++) {
            if (keep) {
                const struct pair *pair = &table->pairs[bits->word >> (64 - LOOKUP_BITS)];
                block[zigzag[k + pair->offsets[0]]] = pair->values[0];
                block[zigzag[k + pair->offsets[1]]] = pair->values[1];
                advance = pair->advance, length = pair->length;
            } else {
                const struct skip *skip = &table->skips[bits->word >> (64 - LOOKUP_BITS)];
                advance = skip->advance, length = skip->length;
            }
            if (k + advance >= DCTSIZE2)
                goto rare;
            k += advance;
            consume(bits, length);
        }
        continue;
    rare:
        if (k + advance - BLOCK_END < DCTSIZE2) {
            consume(bits, length);
            return 1;
        }
        /* A long code or value, or symbols of which some may be the next block's. */
        int value, symbol;
        refill(bits);
        symbol = read_symbol(bits, table, &value);
        if (symbol < 0)
            return 0;
        if (ends_block(symbol))
            return 1;
        k += symbol >> 4;
        if (k >= DCTSIZE2)
            return 0;
        if (keep)
            block[zigzag[k]] = value;
        k++;
    }
    return 1;
}

/* Decode an MCU into zeroed blocks, which are not used unless `keep`. Returns 0 on damage. */
ALWAYS_INLINE int decode_blocks(struct huffman *huffman, JBLOCKROW *blocks, int keep)
{
    struct position *position = &huffman->position;
    struct bits bits = {0, 0, huffman->plain + position->bit / 8};
    refill(&bits);
    consume(&bits, position->bit % 8);
    for (int i = 0; i < huffman->blocks; i++) {
        int32_t *dc = &position->dc[huffman->component[i]];
        JCOEF *block = keep ? *blocks[i] : NULL;
        int difference;
        refill(&bits);
        if (read_symbol(&bits, huffman->dc[i], &difference) < 0)
            return 0;
        *dc += difference;
        if (*dc < -(1 << 30) || *dc > 1 << 30 || !decode_ac(&bits, huffman->ac[i], block, keep))
            return 0; /* libjpeg-turbo rejects a sum that overflows */
        if (keep)
            block[0] = (JCOEF)*dc;
    }
    position->bit = 8 * (size_t)(bits.next - huffman->plain) - bits.left;
    return position->bit <= 8 * position->filled;
}

static int keep_plain(struct huffman *huffman, JBLOCKROW *blocks)
{
    return decode_blocks(huffman, blocks, 1);
}

static int skip_plain(struct huffman *huffman, JBLOCKROW *blocks)
{
    return decode_blocks(huffman, blocks, 0);
}

#ifdef __x86_64__
#define BMI2 __attribute__((target("bmi,bmi2"))) /* faster shifts; the code is the same */

BMI2 static int keep_bmi2(struct huffman *huffman, JBLOCKROW *blocks)
{
    return decode_blocks(huffman, blocks, 1);
}

BMI2 static int skip_bmi2(struct huffman *huffman, JBLOCKROW *blocks)
{
    return decode_blocks(huffman, blocks, 0);
}

static int has_bmi2(void)
{
    return !PLAIN && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
#else
#define keep_bmi2 keep_plain
#define skip_bmi2 skip_plain

static int has_bmi2(void)
{
    return 0;
}
#endif
