#include "blake2b.h"

#include <stdbool.h>
#include <string.h>

#define BLOCK sizeof((struct blake2b *)0)->block

static const uint64_t initial[8] = {
    UINT64_C(0x6a09e667f3bcc908), UINT64_C(0xbb67ae8584caa73b), UINT64_C(0x3c6ef372fe94f82b), UINT64_C(0xa54ff53a5f1d36f1),
    UINT64_C(0x510e527fade682d1), UINT64_C(0x9b05688c2b3e6c1f), UINT64_C(0x1f83d9abfb41bd6b), UINT64_C(0x5be0cd19137e2179),
};

static const uint8_t order[10][16] = { /* SIGMA; rounds 10 and 11 are 0 and 1 again */
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static inline uint64_t rotated(uint64_t word, int bits) { return word >> bits | word << (64 - bits); }

static inline void mix(uint64_t *v, int a, int b, int c, int d, uint64_t x, uint64_t y)
{
    v[a] += v[b] + x;
    v[d] = rotated(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = rotated(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = rotated(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotated(v[b] ^ v[c], 63);
}

static void compress(struct blake2b *b, const uint8_t *block, bool last)
{
    uint64_t v[16], m[16];
    memcpy(m, block, sizeof m); /* both architectures are little-endian */
    memcpy(v, b->state, sizeof b->state);
    memcpy(v + 8, initial, sizeof initial);
    v[12] ^= b->length;
    v[14] ^= last ? UINT64_MAX : 0;
    for (int round = 0; round < 12; round++) {
        const uint8_t *s = order[round % 10];
        mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
        mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
        mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
        mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
        mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
        mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
        mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
        mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; i++)
        b->state[i] ^= v[i] ^ v[i + 8];
}

void blake2b_begin(struct blake2b *b)
{
    *b = (struct blake2b){0};
    memcpy(b->state, initial, sizeof initial);
    b->state[0] ^= UINT64_C(0x01010000) ^ DIGEST;
}

void blake2b_add(struct blake2b *b, const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    while (length) {
        if (b->used == BLOCK) { /* only now: the last block, full or not, is compressed at the end */
            b->length += BLOCK;
            compress(b, b->block, false);
            b->used = 0;
        }
        if (!b->used)
            for (; length > BLOCK; at += BLOCK, length -= BLOCK) {
                b->length += BLOCK;
                compress(b, at, false);
            }
        size_t room = BLOCK - b->used, n = room < length ? room : length;
        memcpy(b->block + b->used, at, n);
        b->used += n;
        at += n;
        length -= n;
    }
}

void blake2b_end(struct blake2b *b, uint8_t digest[DIGEST])
{
    memset(b->block + b->used, 0, BLOCK - b->used);
    b->length += b->used;
    compress(b, b->block, true);
    memcpy(digest, b->state, DIGEST);
}
