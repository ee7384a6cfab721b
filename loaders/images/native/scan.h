/* Baseline scan of a JPEG, decoded by our Huffman decoder in the place of libjpeg-turbo's. Used by reader.h.
 *
 * Without a seek table every MCU up to the last one needed is decoded; with one, decoding starts anew at the entry
 * before the first MCU needed in each row.
 */
#include "huffman.h"

/* The first members, the same in libjpeg-turbo 2.1 and 3. It is declared in jpegint.h, which is not installed. */
struct jpeg_entropy_decoder {
    void (*start_pass)(j_decompress_ptr);
    boolean (*decode_mcu)(j_decompress_ptr, JBLOCKROW *);
};

/* Make sure that all bytes of the next MCU are in `plain`, if the file has them. */
static void unstuff(struct huffman *huffman)
{
    struct position *position = &huffman->position;
    size_t used = position->bit / 8, kept = position->filled - used;
    const uint8_t *in = position->input, *until = huffman->until;
    if (position->stopped || kept >= MCU_MOST || in >= until)
        return;
    memmove(huffman->plain, huffman->plain + used, kept);
    position->removed += used;
    position->bit %= 8;
    const uint8_t *stop = until - in > CHUNK ? in + CHUNK : until;
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
    const uint8_t *segment = position->input + 2;
    *position = (struct position){position->mcu, segment, segment, .restarts = position->restarts + 1};
    unstuff(huffman);
    return 1;
}

/* Decode the next MCU, or skip it if `blocks` is NULL. Returns 0 on damage. */
static int decode_next(struct huffman *huffman, JBLOCKROW *blocks)
{
    struct position *position = &huffman->position;
    unstuff(huffman);
    if (huffman->interval && position->mcus == huffman->interval && !restart(huffman))
        return 0;
    position->mcu++;
    position->mcus++;
    return (blocks ? huffman->keep : huffman->skip)(huffman, blocks);
}

/* ---- Seek tables ---- */

/* Decode on from an entry, which is the state before `mcu`. */
static void start_at(struct huffman *huffman, struct seek_entry entry, size_t mcu)
{
    const uint8_t *input = huffman->begin + entry.bit / 8;
    struct position position = {.mcu = mcu, .input = input, .segment = input, .bit = entry.bit % 8};
    for (int i = 0; i < 3; i++)
        position.dc[i] = entry.dc[i];
    if (huffman->interval && mcu) {
        position.restarts = (mcu - 1) / huffman->interval;
        position.mcus = mcu - position.restarts * (size_t)huffman->interval;
    }
    huffman->position = position;
}

/* Go to an MCU, by the table. Returns 0 on damage. */
static int seek(struct huffman *huffman, size_t mcu)
{
    const struct seek_table *table = &huffman->table;
    size_t row = mcu / huffman->columns, place = mcu % huffman->columns / table->every;
    size_t start = row * huffman->columns + place * table->every;
    size_t after = row * table->per_row + huffman->last / table->every + 1; /* the entry behind those needed */
    huffman->until = huffman->end;
    if (after < table->count) {
        size_t bytes = seek_entry_of(table, after).bit / 8 + 1;
        if (bytes < (size_t)(huffman->end - huffman->begin))
            huffman->until = huffman->begin + bytes;
    }
    if (start > huffman->position.mcu)
        start_at(huffman, seek_entry_of(table, row * table->per_row + place), start);
    while (huffman->position.mcu < mcu)
        if (!decode_next(huffman, NULL))
            return 0;
    return 1;
}

/* Write the entries of a table with this many columns between them. Returns 0 on damage, or if a value is too large. */
static int write_entries(struct huffman *huffman, size_t every, int components, uint8_t *out)
{
    struct position *position = &huffman->position;
    const uint8_t *segment = huffman->begin, *input = segment; /* of the byte at `plain` */
    size_t plain = 0;                                          /* unstuffed bytes from `segment` to `input` */
    for (size_t row = 0; row < huffman->rows; row++)
        for (size_t column = 0; column < huffman->columns; column++) {
            if (column % every == 0) {
                if (segment != position->segment)
                    segment = input = position->segment, plain = 0;
                for (; plain < position->removed + position->bit / 8; plain++)
                    input += input[0] == 0xFF ? 2 : 1;
                struct seek_entry entry = {.bit = 8 * (input - huffman->begin) + position->bit % 8};
                for (int i = 0; i < components; i++) {
                    entry.dc[i] = position->dc[i];
                    if (entry.dc[i] != position->dc[i])
                        return 0;
                }
                memcpy(out, &entry, stride_of(components));
                out += stride_of(components);
            }
            if (!decode_next(huffman, NULL))
                return 0;
        }
    return 1;
}

/* ---- In libjpeg-turbo's place ---- */

static struct huffman *huffman_of(j_decompress_ptr jpeg);

/* Takes the place of libjpeg-turbo's function. `blocks` is NULL for an MCU to skip. */
static boolean decode_mcu(j_decompress_ptr jpeg, JBLOCKROW *blocks)
{
    struct huffman *huffman = huffman_of(jpeg);
    size_t mcu = huffman->mcu++, column = huffman->column;
    int keep = blocks && column >= huffman->first && column <= huffman->last;
    huffman->column = column + 1 < huffman->columns ? column + 1 : 0;
    if (!keep && huffman->table.entries)
        return TRUE;
    int good = !huffman->table.entries || column > huffman->first || seek(huffman, mcu);
    if (!good || !decode_next(huffman, keep ? blocks : NULL))
        jpeg->err->error_exit((j_common_ptr)jpeg);
    return TRUE;
}

/* Decode the scan that has just been started, if it is one that this decoder can. The MCUs outside the output's
 * columns, which start at column `left` of the image, are skipped. */
static void open_huffman(struct huffman *huffman, j_decompress_ptr jpeg, const struct image *image, JDIMENSION left)
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
    huffman->rows = jpeg->MCU_rows_in_scan;
    huffman->interval = jpeg->restart_interval;
    huffman->begin = jpeg->src->next_input_byte;
    huffman->end = huffman->until = huffman->begin + jpeg->src->bytes_in_buffer;
    huffman->position = (struct position){.segment = huffman->begin, .input = huffman->begin};
    huffman->keep = has_bmi2() ? keep_bmi2 : keep_plain;
    huffman->skip = has_bmi2() ? skip_bmi2 : skip_plain;
    huffman->active = 1;
    jpeg->entropy->decode_mcu = decode_mcu;
    open_seek_table(&huffman->table, image, huffman->end - huffman->begin, jpeg->num_components, huffman->rows,
                    huffman->columns);
}
