/* Members of a POSIX pax archive, header blocks to and fro. Only the form that PERSIST writes is read: `x` records and ustar
 * headers; the host turns all others into it. */
#ifndef TAR_H
#define TAR_H

#include "wire.h"

#include <sys/types.h>

#define BLOCK 512u

struct xattr {
    const char *name;
    const void *value;
    size_t length;
};

struct member {
    char type; /* '0' file, '1' hard link, '2' symbolic link, '5' directory */
    const char *path;   /* relative to the root, without `./` and trailing slash; empty: the root itself */
    const char *target; /* of a link */
    mode_t mode;
    uid_t uid;
    gid_t gid;
    int64_t mtime;      /* nanoseconds since the epoch */
    uint64_t size;      /* of the file */
    uint64_t stored;    /* bytes of data in the archive: `size`, or less for a sparse file, whose map comes first */
    bool sparse;
    struct xattr *xattrs;
    size_t xattr_count;
};

/* Append the blocks that precede the member's data. */
void put_member(struct writer *w, const struct member *m);

/* A tar stream being read from the worker's input, or, in a fuzzer, from memory. */
struct tar_input {
    size_t (*read)(void *bytes, size_t room);
    uint8_t *buffer;
    size_t at, used;
    uint64_t offset;    /* of the next byte, from the beginning of the stream */
    uint64_t data_left; /* of the member last read, padding not counted */
    uint64_t padding;
    struct writer records; /* pax records of that member; its strings point in here */
    const char *error;     /* what is wrong with the stream */
};

void tar_begin(struct tar_input *in, size_t (*read)(void *, size_t));
/* The next member: 1, 0 at the end of the archive, -1 with in->error. What is left of the last member's data is passed over.
 * The member is good until the next call. */
int tar_next(struct tar_input *in, struct member *m);
/* Up to `room` bytes of the member's data, 0 at its end; -1 with in->error if the stream ends before. */
ssize_t tar_data(struct tar_input *in, void *bytes, size_t room);
/* Whether nothing but zeros follows the end blocks. */
bool tar_ends_here(struct tar_input *in);
/* Byte order of the components of two paths: a directory, then what is in it, then its next sibling. */
int compare_paths(const char *a, const char *b);

#endif
