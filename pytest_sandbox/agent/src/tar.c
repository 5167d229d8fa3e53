#include "tar.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NANO INT64_C(1000000000)
#define INPUT_BUFFER (256u * 1024)
#define MAX_RECORDS (1024u * 1024) /* bytes of pax records of one member: xattrs are at most 64 KiB each */
#define LAST_SECOND (INT64_MAX / NANO - 1) /* in 2262 */
#define MAX_PATH_BYTES (64u * 1024)
#define XATTR "SCHILY.xattr."

enum { NAME = 0, MODE = 100, UID = 108, GID = 116, SIZE = 124, MTIME = 136, CHECKSUM = 148, TYPE = 156, LINK = 157,
       MAGIC = 257, DEVMAJOR = 329, DEVMINOR = 337 }; /* offsets in a ustar header (pax(1p)) */

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void put_octal(uint8_t *field, size_t width, uint64_t value)
{
    for (size_t i = width - 1; i-- > 0; value >>= 3)
        field[i] = (uint8_t)('0' + (value & 7));
}

static uint32_t checksum(const uint8_t *block)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < BLOCK; i++)
        sum += i >= CHECKSUM && i < CHECKSUM + 8 ? ' ' : block[i];
    return sum;
}

struct header {
    const char *name, *link;
    uint64_t mode, uid, gid, size, mtime;
    char type;
};

static void put_header(struct writer *w, const struct header *h)
{
    reserve(w, BLOCK);
    uint8_t *block = w->bytes + w->used;
    memset(block, 0, BLOCK);
    memcpy(block + NAME, h->name, strnlen(h->name, 100));
    memcpy(block + LINK, h->link, strnlen(h->link, 100));
    put_octal(block + MODE, 8, h->mode);
    put_octal(block + UID, 8, h->uid);
    put_octal(block + GID, 8, h->gid);
    put_octal(block + SIZE, 12, h->size);
    put_octal(block + MTIME, 12, h->mtime);
    put_octal(block + DEVMAJOR, 8, 0);
    put_octal(block + DEVMINOR, 8, 0);
    block[TYPE] = (uint8_t)h->type;
    memcpy(block + MAGIC, "ustar\00000", 8);
    put_octal(block + CHECKSUM, 7, checksum(block));
    block[CHECKSUM + 7] = ' ';
    w->used += BLOCK;
}

static void pad_to_block(struct writer *w, size_t start)
{
    static const uint8_t zeros[BLOCK];
    size_t over = (w->used - start) % BLOCK;
    if (over)
        put_bytes(w, zeros, BLOCK - over);
}

/* "LENGTH KEY=VALUE\n", where LENGTH counts itself. */
static void put_record(struct writer *w, const char *key, const char *suffix, const void *value, size_t length)
{
    size_t rest = 1 + strlen(key) + strlen(suffix) + 1 + length + 1, total = rest + 1;
    for (size_t digits = 1, limit = 10; total >= limit; limit *= 10)
        total = rest + ++digits;
    char head[24];
    int n = snprintf(head, sizeof head, "%zu ", total);
    put_bytes(w, head, (size_t)n);
    put_bytes(w, key, strlen(key));
    put_bytes(w, suffix, strlen(suffix));
    put_bytes(w, "=", 1);
    put_bytes(w, value, length);
    put_bytes(w, "\n", 1);
}

static void put_number_record(struct writer *w, const char *key, uint64_t value)
{
    char text[24];
    put_record(w, key, "", text, (size_t)snprintf(text, sizeof text, "%" PRIu64, value));
}

static void put_time_record(struct writer *w, int64_t mtime)
{
    /* Nine digits after the point; before the epoch the fraction still counts forward in the kernel, but backward here. */
    uint64_t magnitude = mtime < 0 ? -(uint64_t)mtime : (uint64_t)mtime;
    char text[40];
    int n = snprintf(text, sizeof text, "%s%" PRIu64 ".%09" PRIu64, mtime < 0 ? "-" : "", magnitude / NANO, magnitude % NANO);
    put_record(w, "mtime", "", text, (size_t)n);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct xattr *)a)->name, ((const struct xattr *)b)->name);
}

void put_member(struct writer *w, const struct member *m)
{
    static const uint64_t max_octal7 = 07777777, max_octal11 = UINT64_C(077777777777);
    size_t path_length = strlen(m->path);
    char *name = xrealloc(NULL, path_length + 3);
    sprintf(name, "%s%s", path_length ? m->path : ".", m->type == '5' ? "/" : "");
    const char *target = m->target ? m->target : "";
    bool timed = m->mtime < 0 || m->mtime % NANO || (uint64_t)(m->mtime / NANO) > max_octal11;

    struct writer records = {0}; /* in byte order of the keywords */
    if (m->sparse) {
        put_record(&records, "GNU.sparse.major", "", "1", 1);
        put_record(&records, "GNU.sparse.minor", "", "0", 1);
        put_record(&records, "GNU.sparse.name", "", name, strlen(name));
        put_number_record(&records, "GNU.sparse.realsize", m->size);
    }
    if (m->xattr_count)
        qsort(m->xattrs, m->xattr_count, sizeof *m->xattrs, by_name);
    for (size_t i = 0; i < m->xattr_count; i++)
        put_record(&records, XATTR, m->xattrs[i].name, m->xattrs[i].value, m->xattrs[i].length);
    if (m->gid > max_octal7)
        put_number_record(&records, "gid", m->gid);
    if (strlen(target) > 100)
        put_record(&records, "linkpath", "", target, strlen(target));
    if (timed)
        put_time_record(&records, m->mtime);
    if (strlen(name) > 100 && !m->sparse)
        put_record(&records, "path", "", name, strlen(name));
    if (m->stored > max_octal11)
        put_number_record(&records, "size", m->stored);
    if (m->uid > max_octal7)
        put_number_record(&records, "uid", m->uid);
    if (records.used) {
        put_header(w, &(struct header){.name = "PaxHeaders/x", .link = "", .mode = 0644, .size = records.used, .type = 'x'});
        size_t start = w->used;
        put_bytes(w, records.bytes, records.used);
        pad_to_block(w, start);
    }
    put_header(w, &(struct header){
        .name = m->sparse ? "GNUSparseFile.0/x" : name, .link = target, .mode = m->mode & 07777,
        .uid = m->uid > max_octal7 ? 0 : m->uid, .gid = m->gid > max_octal7 ? 0 : m->gid,
        .size = m->stored > max_octal11 ? 0 : m->stored,
        .mtime = m->mtime < 0 || (uint64_t)(m->mtime / NANO) > max_octal11 ? 0 : (uint64_t)(m->mtime / NANO), .type = m->type});
    free(records.bytes);
    free(name);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

void tar_begin(struct tar_input *in, size_t (*read)(void *, size_t))
{
    *in = (struct tar_input){.read = read, .buffer = xrealloc(NULL, INPUT_BUFFER)};
}

/* Bytes that are there without waiting, after having made sure that there is at least one; 0 at the end. */
static size_t fill(struct tar_input *in)
{
    if (in->at == in->used) {
        in->at = 0;
        in->used = in->read(in->buffer, INPUT_BUFFER);
    }
    return in->used - in->at;
}

static bool take_exactly(struct tar_input *in, void *bytes, size_t length)
{
    for (uint8_t *to = bytes; length;) {
        size_t n = fill(in);
        if (!n)
            return false;
        n = n < length ? n : length;
        memcpy(to, in->buffer + in->at, n);
        in->at += n;
        in->offset += n;
        to += n;
        length -= n;
    }
    return true;
}

static bool skip(struct tar_input *in, uint64_t length)
{
    while (length) {
        size_t n = fill(in);
        if (!n)
            return false;
        n = n < length ? n : (size_t)length;
        in->at += n;
        in->offset += n;
        length -= n;
    }
    return true;
}

static int damaged(struct tar_input *in, const char *why)
{
    in->error = why;
    return -1;
}

static bool take_octal(const uint8_t *field, size_t width, uint64_t *value)
{
    *value = 0;
    size_t i = 0;
    for (; i < width && field[i] >= '0' && field[i] <= '7'; i++)
        *value = *value << 3 | (uint64_t)(field[i] - '0');
    return i > 0 && (i == width || field[i] == 0 || field[i] == ' ');
}

static bool take_decimal(const char *text, uint64_t *value)
{
    *value = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || *value > (UINT64_MAX - 9) / 10)
            return false;
        *value = *value * 10 + (uint64_t)(*text - '0');
    }
    return true;
}

/* Seconds with an optional fraction, which is cut to nanoseconds. */
static bool take_time(const char *text, int64_t *value)
{
    bool negative = *text == '-';
    text += negative;
    uint64_t seconds = 0, nanoseconds = 0;
    size_t whole = strspn(text, "0123456789");
    if (!whole || whole > 10)
        return false;
    for (size_t i = 0; i < whole; i++)
        seconds = seconds * 10 + (uint64_t)(text[i] - '0');
    text += whole;
    if (*text == '.') {
        uint64_t unit = NANO / 10;
        for (text++; *text >= '0' && *text <= '9'; text++, unit /= 10)
            nanoseconds += unit * (uint64_t)(*text - '0');
    }
    if (*text || seconds > LAST_SECOND)
        return false;
    *value = (int64_t)(seconds * NANO + nanoseconds);
    if (negative)
        *value = -*value;
    return true;
}

struct records {
    char *path, *target, *sparse_name;
    uint64_t size, uid, gid, realsize;
    int64_t mtime;
    bool has_size, has_uid, has_gid, has_mtime, has_realsize, sparse;
    struct xattr *xattrs;
    size_t xattr_count;
};

static bool take_record(struct records *p, char *key, char *value, size_t length)
{
    if (!strncmp(key, XATTR, sizeof XATTR - 1)) { /* the only values that are bytes, not text */
        p->xattrs = xrealloc(p->xattrs, (p->xattr_count + 1) * sizeof *p->xattrs);
        p->xattrs[p->xattr_count++] = (struct xattr){key + sizeof XATTR - 1, value, length};
        return key[sizeof XATTR - 1] != 0;
    }
    if (strlen(value) != length)
        return false;
    if (!strcmp(key, "path"))
        p->path = value;
    else if (!strcmp(key, "linkpath"))
        p->target = value;
    else if (!strcmp(key, "size"))
        return p->has_size = take_decimal(value, &p->size);
    else if (!strcmp(key, "uid"))
        return (p->has_uid = take_decimal(value, &p->uid)) && p->uid < UINT32_MAX;
    else if (!strcmp(key, "gid"))
        return (p->has_gid = take_decimal(value, &p->gid)) && p->gid < UINT32_MAX;
    else if (!strcmp(key, "mtime"))
        return p->has_mtime = take_time(value, &p->mtime);
    else if (!strcmp(key, "GNU.sparse.name"))
        p->sparse_name = value;
    else if (!strcmp(key, "GNU.sparse.realsize"))
        return p->has_realsize = take_decimal(value, &p->realsize);
    else if (!strcmp(key, "GNU.sparse.major"))
        return p->sparse = !strcmp(value, "1");
    else if (!strcmp(key, "GNU.sparse.minor"))
        return !strcmp(value, "0");
    else
        return false; /* the host sends no others, so this is not the host's archive */
    return true;
}

static bool take_records(struct records *p, char *at, size_t left)
{
    while (left) {
        size_t length = 0, digits = 0;
        while (digits < left && digits < 8 && at[digits] >= '0' && at[digits] <= '9')
            length = length * 10 + (size_t)(at[digits++] - '0');
        if (!digits || digits == left || at[digits] != ' ' || length <= digits + 2 || length > left || at[length - 1] != '\n')
            return false;
        char *key = at + digits + 1, *end = at + length - 1;
        char *equals = memchr(key, '=', (size_t)(end - key));
        if (!equals || equals == key)
            return false;
        *equals = *end = 0;
        if (strlen(key) != (size_t)(equals - key) || !take_record(p, key, equals + 1, (size_t)(end - equals - 1)))
            return false;
        at += length;
        left -= length;
    }
    return true;
}

/* A NUL-terminated copy of a header field that may fill its room, kept with the member's records. */
static size_t keep_field(struct writer *w, const uint8_t *field, size_t width)
{
    size_t at = w->used;
    put_bytes(w, field, strnlen((const char *)field, width));
    put_u8(w, 0);
    return at;
}

/* Relative, no empty, `.` or `..` component; a trailing slash is cut. */
static bool clean_path(char *path)
{
    size_t length = strlen(path);
    if (length && path[length - 1] == '/')
        path[--length] = 0;
    if (!strcmp(path, ".")) {
        *path = 0;
        return true;
    }
    if (!length || length > MAX_PATH_BYTES)
        return false;
    for (const char *part = path;;) { /* some libraries' strchr(3) goes to the end of the string, and paths can be long */
        size_t n = 0;
        while (part[n] && part[n] != '/')
            n++;
        if (!n || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        if (!part[n])
            return true;
        part += n + 1;
    }
}

static int read_header(struct tar_input *in, uint8_t *block)
{
    if (!take_exactly(in, block, BLOCK))
        return damaged(in, "it ends in the middle");
    static const uint8_t zeros[BLOCK];
    if (!memcmp(block, zeros, BLOCK)) {
        if (!take_exactly(in, block, BLOCK) || memcmp(block, zeros, BLOCK))
            return damaged(in, "one end block only");
        return 0;
    }
    uint64_t sum;
    if (!take_octal(block + CHECKSUM, 8, &sum) || sum != checksum(block) || memcmp(block + MAGIC, "ustar\00000", 8))
        return damaged(in, "not a header");
    return 1;
}

static int read_records(struct tar_input *in, const uint8_t *block, struct records *p)
{
    uint64_t size;
    if (!take_octal(block + SIZE, 12, &size) || !size || size > MAX_RECORDS)
        return damaged(in, "pax records of a size that is not taken");
    reserve(&in->records, size + 300); /* no growth from here on: strings point in here */
    if (!take_exactly(in, in->records.bytes, size) || !skip(in, (BLOCK - size % BLOCK) % BLOCK))
        return damaged(in, "it ends in the middle");
    in->records.used = size;
    if (!take_records(p, (char *)in->records.bytes, size))
        return damaged(in, "malformed pax records");
    return 1;
}

int tar_next(struct tar_input *in, struct member *m)
{
    uint8_t block[BLOCK];
    struct records p = {0};
    free(m->xattrs);
    *m = (struct member){0};
    if (!skip(in, in->data_left + in->padding))
        return damaged(in, "it ends in the middle");
    in->data_left = in->padding = 0;
    in->records.used = 0;
    reserve(&in->records, 300);
    int more = read_header(in, block);
    if (more > 0 && block[TYPE] == 'x') {
        more = read_records(in, block, &p);
        m->xattrs = p.xattrs;
        m->xattr_count = p.xattr_count;
        if (more > 0)
            more = read_header(in, block);
        if (!more)
            return damaged(in, "pax records without a member");
    }
    if (more <= 0)
        return more;

    uint64_t mode, uid, gid, size, mtime;
    if (!take_octal(block + MODE, 8, &mode) || !take_octal(block + UID, 8, &uid) || !take_octal(block + GID, 8, &gid) ||
        !take_octal(block + SIZE, 12, &size) || !take_octal(block + MTIME, 12, &mtime) || mtime > LAST_SECOND ||
        mode > 07777)
        return damaged(in, "a number in a header that is none");
    size_t name = keep_field(&in->records, block + NAME, 100), link = keep_field(&in->records, block + LINK, 100);
    char *path = p.sparse_name ? p.sparse_name : p.path ? p.path : (char *)in->records.bytes + name;
    m->type = (char)block[TYPE];
    m->target = p.target ? p.target : (char *)in->records.bytes + link;
    m->mode = (mode_t)mode;
    m->uid = (uid_t)(p.has_uid ? p.uid : uid);
    m->gid = (gid_t)(p.has_gid ? p.gid : gid);
    m->mtime = p.has_mtime ? p.mtime : (int64_t)mtime * NANO;
    m->stored = p.has_size ? p.size : size;
    m->sparse = p.sparse;
    m->size = p.sparse ? p.realsize : m->stored;
    if (!clean_path(path))
        return damaged(in, "a name that leaves the root");
    m->path = path;
    if (!memchr("0125", m->type, 4) || (m->type != '0' && (m->stored || m->sparse)) || (!*path && m->type != '5') ||
        (p.sparse && !p.has_realsize) || m->stored > INT64_MAX / 2 || m->size > INT64_MAX / 2)
        return damaged(in, "a member that is not taken");
    if ((m->type == '1' && (!clean_path((char *)(uintptr_t)m->target) || !*m->target)) || (m->type == '2' && !*m->target))
        return damaged(in, "a link to nowhere");
    in->data_left = m->stored;
    in->padding = (BLOCK - m->stored % BLOCK) % BLOCK;
    return 1;
}

ssize_t tar_data(struct tar_input *in, void *bytes, size_t room)
{
    room = room < in->data_left ? room : (size_t)in->data_left;
    if (!room)
        return 0;
    size_t n = fill(in);
    if (!n)
        return damaged(in, "it ends in the middle");
    n = n < room ? n : room;
    memcpy(bytes, in->buffer + in->at, n);
    in->at += n;
    in->offset += n;
    in->data_left -= n;
    return (ssize_t)n;
}

bool tar_ends_here(struct tar_input *in)
{
    for (size_t n; (n = fill(in)) > 0; in->at += n)
        for (size_t i = 0; i < n; i++)
            if (in->buffer[in->at + i])
                return false;
    return true;
}

int compare_paths(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    int x = *a == '/' ? 1 : *a ? 1 + (uint8_t)*a : 0, y = *b == '/' ? 1 : *b ? 1 + (uint8_t)*b : 0;
    return x - y;
}
