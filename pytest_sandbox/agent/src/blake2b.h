/* BLAKE2b with 32 bytes of digest and no key (RFC 7693): what the host's hashlib.blake2b(digest_size=32) gives. */
#ifndef BLAKE2B_H
#define BLAKE2B_H

#include <stddef.h>
#include <stdint.h>

#define DIGEST 32

struct blake2b {
    uint64_t state[8], length; /* of all that was hashed, at most 2^64 - 1 bytes */
    uint8_t block[128];
    size_t used;
};

void blake2b_begin(struct blake2b *b);
void blake2b_add(struct blake2b *b, const void *bytes, size_t length);
void blake2b_end(struct blake2b *b, uint8_t digest[DIGEST]);

#endif
