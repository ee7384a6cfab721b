/* Look-up tables of a Huffman code, cached by the code. Used by huffman.h. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

enum { LOOKUP_BITS = 10 }; /* most codes are shorter; larger tables are not faster, and slower to build */
enum { SKIP_MOST = 18 };   /* bits that a look-up may skip: its last value may exceed the bits seen */
enum { TABLES = 16 };      /* cached per thread; an image has at most 8 */
enum { BLOCK_END = 128 };  /* added to `advance` if the last symbol ends the block */
enum { SINGLE = 255 };     /* `advance` of a look-up that decodes nothing: use `codes`, then long_code() */

/* One or two symbols of a block. A single one is stored twice, so that storing both needs no branch. */
struct pair {
    int16_t values[2];
    uint8_t offsets[2]; /* of the values in zigzag order, relative to the next coefficient; 64: no value */
    uint8_t advance;    /* coefficients */
    uint8_t length;     /* bits */
};

/* As many symbols as fit, whose values are not needed. */
struct skip {
    uint8_t advance, length;
};

struct huffman_table {
    uint8_t bits[17], symbols[256];      /* as in JHUFF_TBL */
    int is_ac;
    uint64_t used;                       /* time of last use; 0 if invalid */
    int32_t last[17];                    /* last code of each length, or -1 */
    int32_t first[17];                   /* index in `symbols` of the first code of each length, minus the code */
    uint16_t codes[1 << LOOKUP_BITS];    /* length << 8 | symbol; 0 if the code is longer or invalid */
    struct pair pairs[1 << LOOKUP_BITS]; /* if is_ac */
    struct skip skips[1 << LOOKUP_BITS]; /* if is_ac */
};

/* Value of the first `size` bits, 0 to 16 (JPEG's EXTEND). */
static inline int value_of(uint64_t word, int size)
{
    int64_t negative = ~((int64_t)word >> 63); /* all ones if the first bit is 0 */
    int magnitude = (int)((word ^ (uint64_t)negative) >> 1 >> (63 - size));
    return (magnitude ^ (int)negative) - (int)negative;
}

/* Whether an AC symbol ends the block; those of progressive JPEGs (EOBn) do so in libjpeg-turbo, too. */
static inline int ends_block(int symbol)
{
    return (symbol & 15) == 0 && symbol != 0xF0;
}

/* Look up the code at the start of `word` among those too long for `codes`: length << 8 | symbol, or 0. */
static int long_code(const struct huffman_table *table, uint64_t word)
{
    for (int length = LOOKUP_BITS + 1; length <= 16; length++) {
        int32_t code = (int32_t)(word >> (64 - length));
        if (code <= table->last[length])
            return length << 8 | table->symbols[(code + table->first[length]) & 255];
    }
    return 0;
}

static struct pair pair_of(const struct huffman_table *table, unsigned index)
{
    struct pair pair = {.offsets = {64, 64}, .advance = SINGLE};
    for (int n = 0, used = 0, advance = 0; n < 2; n++) {
        uint64_t word = (uint64_t)index << (64 - LOOKUP_BITS) << used;
        int code = table->codes[word >> (64 - LOOKUP_BITS)], symbol = code & 255, size = symbol & 15;
        used += (code >> 8) + size;
        if (!code || used > LOOKUP_BITS)
            break;
        pair.length = used;
        pair.advance = advance + BLOCK_END;
        if (ends_block(symbol))
            break;
        advance = pair.advance = advance + (symbol >> 4) + 1;
        for (int copy = n; copy < 2; copy++) {
            pair.values[copy] = value_of(word << (code >> 8), size);
            pair.offsets[copy] = advance - 1;
        }
    }
    return pair;
}

static struct skip skip_of(const struct huffman_table *table, unsigned index)
{
    struct skip skip = {.advance = SINGLE};
    for (int used = 0, advance = 0; used < LOOKUP_BITS;) {
        int code = table->codes[index << used & ((1 << LOOKUP_BITS) - 1)];
        int symbol = code & 255, length = code >> 8, last = advance + (symbol >> 4);
        if (!code || used + length > LOOKUP_BITS || used + length + (symbol & 15) > SKIP_MOST || last >= 64)
            break;
        used += length + (symbol & 15);
        skip.length = used;
        skip.advance = advance + BLOCK_END;
        if (ends_block(symbol))
            break;
        advance = skip.advance = last + 1;
    }
    return skip;
}

/* Returns 0 if the code is invalid. */
static int build_table(struct huffman_table *table, const JHUFF_TBL *given, int is_ac)
{
    memcpy(table->bits, given->bits, sizeof table->bits);
    memcpy(table->symbols, given->huffval, sizeof table->symbols);
    memset(table->codes, 0, sizeof table->codes);
    table->is_ac = is_ac;
    for (int length = 1, code = 0, n = 0; length <= 16; length++, code <<= 1) {
        table->first[length] = n - code;
        for (int i = 0; i < table->bits[length]; i++, n++, code++) {
            if (n > 255 || code >> length || (!is_ac && table->symbols[n] > 15))
                return 0;
            int unused = LOOKUP_BITS - length;
            for (int rest = 0; unused >= 0 && rest < 1 << unused; rest++)
                table->codes[code << unused | rest] = length << 8 | table->symbols[n];
        }
        table->last[length] = table->bits[length] ? code - 1 : -1;
    }
    for (unsigned index = 0; is_ac && index < 1 << LOOKUP_BITS; index++)
        table->pairs[index] = pair_of(table, index);
    for (unsigned index = 0; is_ac && index < 1 << LOOKUP_BITS; index++)
        table->skips[index] = skip_of(table, index);
    return 1;
}

/* Table of a code, which stays valid until this thread has used TABLES others; NULL if the code is invalid.
 *
 * Most images of a data set share the JPEG standard's codes; building the tables of an AC code takes microseconds.
 */
static const struct huffman_table *table_of(const JHUFF_TBL *given, int is_ac)
{
    static __thread struct huffman_table tables[TABLES];
    static __thread uint64_t uses;
    struct huffman_table *oldest = tables;
    if (!given)
        return NULL;
    for (struct huffman_table *table = tables; table < tables + TABLES; table++) {
        if (table->used && table->is_ac == is_ac && !memcmp(table->bits + 1, given->bits + 1, 16) &&
            !memcmp(table->symbols, given->huffval, sizeof table->symbols)) {
            table->used = ++uses;
            return table;
        }
        oldest = table->used < oldest->used ? table : oldest;
    }
    oldest->used = 0;
    if (!build_table(oldest, given, is_ac))
        return NULL;
    oldest->used = ++uses;
    return oldest;
}
