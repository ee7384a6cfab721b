/* The first outputs of MT19937, the generator of torch on a CPU, for many seeds at once. Used by decode.c.
 *
 * Source: Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8(1), 1998; seeded as in their version of 2002.
 */
#include <stddef.h>
#include <stdint.h>

enum { MIDDLE = 397 };    /* output i depends on the initial state's words i, i + 1 and i + MIDDLE */
enum { MOST_WORDS = 32 }; /* outputs of a seed */
enum { ABREAST = 8 };     /* seeds at once: each word of the state needs the one before it, so one seed would wait */

/* Make the initial state of ABREAST seeds, as far as `n` outputs need it. */
static void seed_states(uint32_t state[][ABREAST], int n)
{
    for (int i = 1; i < MIDDLE + n; i++)
        for (int lane = 0; lane < ABREAST; lane++)
            state[i][lane] = 1812433253u * (state[i - 1][lane] ^ state[i - 1][lane] >> 30) + i;
}

/* Output of a generator from words i, i + 1 and i + MIDDLE of its initial state. */
static uint32_t random_word(uint32_t first, uint32_t second, uint32_t middle)
{
    uint32_t mixed = (first & 0x80000000u) | (second & 0x7fffffffu);
    uint32_t word = middle ^ mixed >> 1 ^ (mixed & 1 ? 0x9908b0dfu : 0);
    word ^= word >> 11;
    word ^= word << 7 & 0x9d2c5680u;
    word ^= word << 15 & 0xefc60000u;
    return word ^ word >> 18;
}

/* The first `n` <= MOST_WORDS outputs of each of `count` seeds, into out[count][n]. torch ignores the upper halves. */
static void first_words(const uint64_t *seeds, int count, int n, uint32_t *out)
{
    uint32_t state[MIDDLE + MOST_WORDS][ABREAST];
    for (int begin = 0; begin < count; begin += ABREAST) {
        int lanes = count - begin < ABREAST ? count - begin : ABREAST;
        for (int lane = 0; lane < ABREAST; lane++)
            state[0][lane] = lane < lanes ? (uint32_t)seeds[begin + lane] : 0;
        seed_states(state, n);
        for (int lane = 0; lane < lanes; lane++)
            for (int i = 0; i < n; i++)
                out[(size_t)(begin + lane) * n + i] =
                    random_word(state[i][lane], state[i + 1][lane], state[i + MIDDLE][lane]);
    }
}
