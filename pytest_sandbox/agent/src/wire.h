/* The bytes of the protocol (docs/protocol.md): bodies read and written, and the numbers both sides agree on. No I/O. */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTOCOL_VERSION 2
#define HELLO_MAGIC "PSANDBOX"
#define HELLO_NONCE 16
#define FRAME_HEADER 9                     /* length, type, channel */
#define MAX_OPEN (4u * 1024 * 1024)        /* payload of OPEN: arguments and environment */
#define MAX_PAYLOAD (65536u + 128)         /* payload of any other frame */
#define MAX_DATA 65536u                    /* bytes in one DATA frame */
#define INPUT_WINDOW (256u * 1024)         /* bytes the host may send on a channel before it is given more */
#define UNLIMITED UINT64_MAX

enum frame_type {
    FRAME_HELLO = 1, FRAME_OPEN, FRAME_OPENED, FRAME_DATA, FRAME_WINDOW, FRAME_EOF,
    FRAME_REQUEST, FRAME_RESULT, FRAME_FAILURE, FRAME_EXIT, FRAME_CLOSED
};

enum kind {
    KIND_EXEC = 1, KIND_TERMINAL = 2,
    KIND_READ = 16, KIND_WRITE, KIND_STAT, KIND_LIST, KIND_MKDIR, KIND_REMOVE, KIND_RENAME, KIND_COPY,
    KIND_CHMOD, KIND_CHOWN, KIND_SYMLINK, KIND_LINK,
    KIND_PERSIST = 48, KIND_HYDRATE, KIND_RESTORE, KIND_FORGET, KIND_CHANGES,
    KIND_SWEEP = 64, KIND_WATCH, KIND_CHANGED, KIND_KEEP
};

enum request { REQUEST_SIGNAL = 1, REQUEST_TERMINATE, REQUEST_DISCARD, REQUEST_RESIZE };

enum stream { STREAM_MAIN = 0, STREAM_STDERR = 1, STREAM_REFUSED = 2 };

/* A body being read. Once `bad` is set every further take gives zero or an empty string, so callers check once, at the end. */
struct reader {
    const uint8_t *at;
    size_t left;
    bool bad;
};

struct slice {
    const char *at;
    uint32_t length;
};

uint8_t take_u8(struct reader *r);
uint16_t take_u16(struct reader *r);
uint32_t take_u32(struct reader *r);
uint64_t take_u64(struct reader *r);
struct slice take_slice(struct reader *r);
/* A NUL-terminated copy; a NUL inside makes the body bad. The process that takes it ends with the operation, so nobody frees it. */
char *take_string(struct reader *r);
/* `count` strings followed by a null pointer, as execve(2) wants them. */
char **take_strings(struct reader *r, uint32_t *count);
/* Whether the body was well-formed and is used up. */
bool taken_whole(const struct reader *r);

/* A body being written; grows as needed. Running out of memory ends the process: there is nothing useful left to do. */
struct writer {
    uint8_t *bytes;
    size_t used, room;
};

void *xrealloc(void *memory, size_t size);
void reserve(struct writer *w, size_t more);
void put_bytes(struct writer *w, const void *bytes, size_t length);
void put_u8(struct writer *w, uint8_t value);
void put_u32(struct writer *w, uint32_t value);
void put_u64(struct writer *w, uint64_t value);
void put_slice(struct writer *w, const void *bytes, size_t length);
void put_string(struct writer *w, const char *string);

#endif
