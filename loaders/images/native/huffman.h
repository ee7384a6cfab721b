/* Huffman decoder for baseline JPEGs, which takes the place of libjpeg-turbo's. Used by decode.c.
 *
 * It is faster for three reasons: stuffed bytes are removed ahead of the reader, so that refilling its 64 bits needs no
 * test; one look-up decodes up to two coefficients; and outside the crop, one look-up skips as many as fit.
 *
 * It accepts fewer JPEGs than libjpeg-turbo: on damage, or anything else unexpected, it calls `error_exit`, after which
 * libjpeg-turbo decodes the JPEG again from the start. All other JPEGs have the same coefficients.
 */
#include "huffman_tables.h"

/* The first members, the same in libjpeg-turbo 2.1 and 3. It is declared in jpegint.h, which is not installed. */
struct jpeg_entropy_decoder {
    void (*start_pass)(j_decompress_ptr);
    boolean (*decode_mcu)(j_decompress_ptr, JBLOCKROW *);
};

enum { MCU_MOST = 4096 }; /* bytes, more than those of an MCU: 10 blocks of 64 coefficients of at most 31 bits */
enum { CHUNK = 8192 };    /* bytes of the file that are unstuffed at a time */

/* Where in the scan the decoder is; any MCU can be decoded from here. */
struct position {
    const uint8_t *input; /* the next byte of the file to unstuff */
    int stopped;          /* whether a marker or the end of the file is there */
    size_t filled;        /* bytes in `plain` */
    size_t bit;           /* the next bit of `plain` */
    int32_t dc[4];        /* the components' last DC coefficients */
    unsigned restarts;    /* markers so far */
    unsigned mcus;        /* MCUs since the last one */
};

struct huffman {
    struct position position;
    int active;
    const uint8_t *end; /* of the file */
    unsigned interval;  /* MCUs between restart markers, or 0 */
    int blocks;         /* of an MCU */
    int component[D_MAX_BLOCKS_IN_MCU];
    const struct huffman_table *dc[D_MAX_BLOCKS_IN_MCU], *ac[D_MAX_BLOCKS_IN_MCU];
    JDIMENSION column, columns, first, last; /* the next MCU's, the number of columns, those whose values are needed */
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

/* ---- The scan ---- */

/* Make sure that all bytes of the next MCU are in `plain`, if the file has them. */
static void unstuff(struct huffman *huffman)
{
    struct position *position = &huffman->position;
    size_t used = position->bit / 8, kept = position->filled - used;
    if (position->stopped || kept >= MCU_MOST)
        return;
    memmove(huffman->plain, huffman->plain + used, kept);
    position->bit %= 8;
    const uint8_t *in = position->input, *stop = huffman->end - in > CHUNK ? in + CHUNK : huffman->end;
    uint8_t *out = huffman->plain + kept;
    while (in < stop) {
        const uint8_t *marker = memchr(in, 0xFF, stop - in);
        size_t count = (marker ? marker : stop) - in;
        memcpy(out, in, count);
        in += count;
        out += count;
        if (!marker)
            break;
        position->stopped = huffman->end - in < 2 || in[1] != 0;
        if (position->stopped)
            break;
        *out++ = 0xFF;
        in += 2;
    }
    position->stopped |= in == huffman->end;
    position->input = in;
    position->filled = out - huffman->plain;
}

/* Continue after a restart marker. Returns 0 if the right one is not exactly here. */
static int restart(struct huffman *huffman)
{
    struct position *position = &huffman->position;
    if (!position->stopped || (position->bit + 7) / 8 != position->filled || huffman->end - position->input < 2 ||
        position->input[1] != JPEG_RST0 + position->restarts % 8)
        return 0;
    *position = (struct position){.input = position->input + 2, .restarts = position->restarts + 1};
    unstuff(huffman);
    return 1;
}

static struct huffman *huffman_of(j_decompress_ptr jpeg);

/* Takes the place of libjpeg-turbo's function. `blocks` is NULL for an MCU to skip. */
static boolean decode_mcu(j_decompress_ptr jpeg, JBLOCKROW *blocks)
{
    struct huffman *huffman = huffman_of(jpeg);
    JDIMENSION column = huffman->column;
    int keep = blocks && column >= huffman->first && column <= huffman->last;
    huffman->column = column + 1 < huffman->columns ? column + 1 : 0;
    unstuff(huffman);
    int good = !huffman->interval || huffman->position.mcus < huffman->interval || restart(huffman);
    huffman->position.mcus++;
    if (!good || !(keep ? huffman->keep : huffman->skip)(huffman, blocks))
        jpeg->err->error_exit((j_common_ptr)jpeg);
    return TRUE;
}

/* Decode the scan that has just been started, if it is one that this decoder can. The MCUs outside the output's
 * columns, which start at column `left` of the image, are skipped. */
static void open_huffman(struct huffman *huffman, j_decompress_ptr jpeg, JDIMENSION left)
{
    if (jpeg->progressive_mode || jpeg->arith_code || jpeg->comps_in_scan != jpeg->num_components || jpeg->Ss != 0 ||
        jpeg->Se != DCTSIZE2 - 1 || jpeg->Ah != 0 || jpeg->Al != 0)
        return;
    huffman->blocks = jpeg->blocks_in_MCU;
    for (int i = 0; i < huffman->blocks; i++) {
        const jpeg_component_info *component = jpeg->cur_comp_info[jpeg->MCU_membership[i]];
        huffman->component[i] = jpeg->MCU_membership[i];
        huffman->dc[i] = table_of(jpeg->dc_huff_tbl_ptrs[component->dc_tbl_no], 0);
        huffman->ac[i] = table_of(jpeg->ac_huff_tbl_ptrs[component->ac_tbl_no], 1);
        if (!huffman->dc[i] || !huffman->ac[i])
            return;
    }
    JDIMENSION width = DCTSIZE / jpeg->scale_denom * (jpeg->num_components == 1 ? 1 : jpeg->max_h_samp_factor);
    huffman->first = left / width; /* as in jpeg_crop_scanline */
    huffman->last = (left + jpeg->output_width - 1) / width;
    huffman->columns = jpeg->MCUs_per_row;
    huffman->interval = jpeg->restart_interval;
    huffman->position.input = jpeg->src->next_input_byte;
    huffman->end = huffman->position.input + jpeg->src->bytes_in_buffer;
    huffman->keep = has_bmi2() ? keep_bmi2 : keep_plain;
    huffman->skip = has_bmi2() ? skip_bmi2 : skip_plain;
    huffman->active = 1;
    jpeg->entropy->decode_mcu = decode_mcu;
}
