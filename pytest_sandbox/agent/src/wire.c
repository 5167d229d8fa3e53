#include "wire.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint8_t *take(struct reader *r, size_t length)
{
    if (r->bad || r->left < length) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *at = r->at;
    r->at += length;
    r->left -= length;
    return at;
}

static uint64_t take_integer(struct reader *r, size_t width)
{
    const uint8_t *at = take(r, width);
    uint64_t value = 0;
    for (size_t i = 0; at && i < width; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

uint8_t take_u8(struct reader *r) { return (uint8_t)take_integer(r, 1); }
uint16_t take_u16(struct reader *r) { return (uint16_t)take_integer(r, 2); }
uint32_t take_u32(struct reader *r) { return (uint32_t)take_integer(r, 4); }
uint64_t take_u64(struct reader *r) { return take_integer(r, 8); }

struct slice take_slice(struct reader *r)
{
    uint32_t length = take_u32(r);
    const uint8_t *at = take(r, length);
    return (struct slice){at ? (const char *)at : "", at ? length : 0};
}

char *take_string(struct reader *r)
{
    struct slice s = take_slice(r);
    if (s.length && memchr(s.at, 0, s.length))
        r->bad = true;
    char *copy = xrealloc(NULL, (size_t)s.length + 1);
    memcpy(copy, s.at, s.length);
    copy[s.length] = 0;
    return copy;
}

char **take_strings(struct reader *r, uint32_t *count)
{
    *count = take_u32(r);
    if (*count > r->left / 4) { /* each string has at least its length */
        r->bad = true;
        *count = 0;
    }
    char **strings = xrealloc(NULL, ((size_t)*count + 1) * sizeof *strings);
    for (uint32_t i = 0; i < *count; i++)
        strings[i] = take_string(r);
    strings[*count] = NULL;
    return strings;
}

bool taken_whole(const struct reader *r) { return !r->bad && r->left == 0; }

void *xrealloc(void *memory, size_t size)
{
    void *grown = realloc(memory, size);
    if (!grown) {
        static const char words[] = "agent: out of memory\n";
        (void)!write(STDERR_FILENO, words, sizeof words - 1);
        _exit(71); /* EX_OSERR */
    }
    return grown;
}

void reserve(struct writer *w, size_t more)
{
    if (w->room - w->used >= more)
        return;
    size_t room = w->room ? w->room : 256;
    while (room - w->used < more)
        room *= 2;
    w->bytes = xrealloc(w->bytes, room);
    w->room = room;
}

void put_bytes(struct writer *w, const void *bytes, size_t length)
{
    if (!length)
        return;
    reserve(w, length);
    memcpy(w->bytes + w->used, bytes, length);
    w->used += length;
}

static void put_integer(struct writer *w, uint64_t value, size_t width)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < width; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    put_bytes(w, bytes, width);
}

void put_u8(struct writer *w, uint8_t value) { put_integer(w, value, 1); }
void put_u32(struct writer *w, uint32_t value) { put_integer(w, value, 4); }
void put_u64(struct writer *w, uint64_t value) { put_integer(w, value, 8); }

void put_slice(struct writer *w, const void *bytes, size_t length)
{
    put_u32(w, (uint32_t)length);
    put_bytes(w, bytes, length);
}

void put_string(struct writer *w, const char *string) { put_slice(w, string, strlen(string)); }
