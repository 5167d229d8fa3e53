/* A tree out as a tar stream, and its index; or of it what differs from an index. */
#include "archive.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <linux/limits.h> /* XATTR_LIST_MAX */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "files.h"
#include "index.h"
#include "tar.h"
#include "walk.h"

#define CHUNK (256u * 1024)
#define MAX_EXTENTS 8192 /* of a sparse file; one with more is stored whole */

/* The first name of each file with several: (device, inode) to entry, open addressing. */
struct names {
    struct first_name { uint64_t device, inode; char *path; uint32_t entry; } *slots;
    size_t count, room;
};

struct archive {
    struct writer buffer;
    uint64_t offset; /* of the first byte in the buffer */
    struct names names;
    struct index index;
    bool indexed;
    struct index since; /* of CHANGES: what is as it says is passed over */
    uint8_t *found;     /* of each of its entries: whether it is still there */
    size_t next;        /* of them; the walk goes in the same order */
    char **left_out;
    uint32_t left_out_count;
    uint64_t members, skipped;
};

static void flush(struct archive *a)
{
    output(a->buffer.bytes, a->buffer.used);
    a->offset += a->buffer.used;
    a->buffer.used = 0;
}

static uint64_t position(const struct archive *a) { return a->offset + a->buffer.used; }

static void pad(struct archive *a, uint64_t length)
{
    size_t padding = (BLOCK - length % BLOCK) % BLOCK;
    reserve(&a->buffer, padding);
    memset(a->buffer.bytes + a->buffer.used, 0, padding);
    a->buffer.used += padding;
}

static struct first_name *find_slot(struct names *n, uint64_t device, uint64_t inode)
{
    size_t at = (size_t)((inode * UINT64_C(0x9e3779b97f4a7c15)) ^ device) & (n->room - 1);
    while (n->slots[at].path && (n->slots[at].inode != inode || n->slots[at].device != device))
        at = (at + 1) & (n->room - 1);
    return &n->slots[at];
}

/* The slot of a file with several names; empty if this is its first. */
static struct first_name *first_name(struct names *n, const struct facts *f)
{
    if (2 * n->count >= n->room) {
        struct names larger = {.room = n->room ? 2 * n->room : 256, .count = n->count};
        larger.slots = xrealloc(NULL, larger.room * sizeof *larger.slots);
        memset(larger.slots, 0, larger.room * sizeof *larger.slots);
        for (size_t i = 0; i < n->room; i++)
            if (n->slots[i].path)
                *find_slot(&larger, n->slots[i].device, n->slots[i].inode) = n->slots[i];
        free(n->slots);
        *n = larger;
    }
    return find_slot(n, f->device, f->inode);
}

static bool is_left_out(const struct archive *a, const char *path, const char *name)
{
    for (uint32_t i = 0; i < a->left_out_count; i++) {
        const char *pattern = a->left_out[i];
        bool whole_path = strchr(pattern, '/') != NULL;
        pattern += *pattern == '/';
        if (fnmatch(pattern, whole_path ? path : name, whole_path ? FNM_PATHNAME : 0) == 0)
            return true;
    }
    return false;
}

/* Open a member; -1 if it has vanished or become something else since it was looked at. What can't be read for another reason
 * must not be left out in silence. */
static int open_member(int directory, const char *name, int flags, const char *path)
{
    int fd = openat(directory, name, flags | O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP && errno != ENXIO)
        fail(errno, "open", path);
    return fd;
}

/* --- xattrs ------------------------------------------------------------------------------------------------------- */

static bool is_kept_xattr(const char *name)
{
    /* What overlayfs writes describes the layers, and labels belong to the host's policy, not to the workspace. */
    return strncmp(name, "trusted.overlay.", 16) && strncmp(name, "user.overlay.", 13) && strcmp(name, "security.selinux");
}

static void read_xattrs(int fd, struct member *m)
{
    static char names[XATTR_LIST_MAX];
    ssize_t length = flistxattr(fd, names, sizeof names);
    for (char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
        static char value[XATTR_SIZE_MAX];
        ssize_t n = is_kept_xattr(name) ? fgetxattr(fd, name, value, sizeof value) : -1;
        if (n < 0)
            continue; /* vanished since it was listed */
        m->xattrs = xrealloc(m->xattrs, (m->xattr_count + 1) * sizeof *m->xattrs);
        char *copy = xrealloc(NULL, (size_t)n + 1);
        memcpy(copy, value, (size_t)n);
        m->xattrs[m->xattr_count++] = (struct xattr){strdup(name), copy, (size_t)n};
    }
}

static void free_xattrs(struct member *m)
{
    for (size_t i = 0; i < m->xattr_count; i++) {
        free((void *)(uintptr_t)m->xattrs[i].name);
        free((void *)(uintptr_t)m->xattrs[i].value);
    }
    free(m->xattrs);
}

/* --- members ------------------------------------------------------------------------------------------------------- */

static struct member member_of(const char *path, const struct facts *f, char type)
{
    return (struct member){.type = type, .path = path, .mode = f->mode & 07777, .uid = f->uid, .gid = f->gid, .mtime = f->mtime};
}

/* Note an entry whose member began at `start`. */
static void note(struct archive *a, const char *path, const struct facts *f, uint64_t start, uint32_t first, bool racy)
{
    a->members++;
    if (!a->indexed)
        return;
    struct index_entry *entry = index_add(&a->index, path, start, position(a) - start);
    index_note(entry, f);
    entry->first = first;
    entry->racy = racy;
}

/* Make sure that a change from now on would show in its ctime. Whether it would. */
static bool settled(const struct archive *a, struct facts *f, int fd, const char *name)
{
    if (!a->indexed || f->ctime < file_clock())
        return true;
    return wait_until_later_than(f->ctime) && facts_at(fd, name, f) == 0;
}

struct extent {
    uint64_t offset, length;
};

/* The parts of a file that hold data; 0 if it has no holes worth the name, or too many. */
static size_t find_extents(int fd, const struct facts *f, struct extent *extents)
{
    if (f->blocks * 512 >= f->size)
        return 0;
    size_t count = 0;
    for (off_t at = 0; (uint64_t)at < f->size;) {
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
            return 0;
        if (data < 0 || (uint64_t)data >= f->size)
            break;
        off_t hole = lseek(fd, data, SEEK_HOLE);
        if (hole <= data || count == MAX_EXTENTS - 1)
            return 0;
        if ((uint64_t)hole > f->size)
            hole = (off_t)f->size;
        extents[count++] = (struct extent){(uint64_t)data, (uint64_t)(hole - data)};
        at = hole;
    }
    if (count == 1 && !extents[0].offset && extents[0].length == f->size)
        return 0;
    if (!count || extents[count - 1].offset + extents[count - 1].length < f->size)
        extents[count++] = (struct extent){f->size, 0}; /* a hole at the end is told by an empty part there */
    return count;
}

/* Exactly `length` bytes from the file: what has been cut off it meanwhile is made up by zeros, for the header is out. */
static void copy_range(struct archive *a, int fd, const char *path, uint64_t offset, uint64_t length)
{
    while (length) {
        if (a->buffer.used >= CHUNK)
            flush(a);
        size_t room = 2 * CHUNK - a->buffer.used;
        room = room < length ? room : (size_t)length;
        reserve(&a->buffer, room);
        ssize_t n = pread(fd, a->buffer.bytes + a->buffer.used, room, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            fail(errno, "read", path);
        if (n == 0) {
            n = (ssize_t)room;
            memset(a->buffer.bytes + a->buffer.used, 0, room);
        }
        a->buffer.used += (size_t)n;
        offset += (uint64_t)n;
        length -= (uint64_t)n;
    }
}

static void put_sparse(struct archive *a, int fd, struct member *m, const struct extent *extents, size_t count)
{
    struct writer map = {0};
    char line[64];
    put_bytes(&map, line, (size_t)sprintf(line, "%zu\n", count));
    m->stored = 0;
    for (size_t i = 0; i < count; i++) {
        put_bytes(&map, line, (size_t)sprintf(line, "%llu\n%llu\n", (unsigned long long)extents[i].offset,
                                              (unsigned long long)extents[i].length));
        m->stored += extents[i].length;
    }
    size_t map_size = (map.used + BLOCK - 1) / BLOCK * BLOCK;
    m->sparse = true;
    m->stored += map_size;
    put_member(&a->buffer, m);
    put_bytes(&a->buffer, map.bytes, map.used);
    pad(a, map.used);
    for (size_t i = 0; i < count; i++)
        copy_range(a, fd, m->path, extents[i].offset, extents[i].length);
    pad(a, m->stored);
    free(map.bytes);
}

static void put_content(struct archive *a, int fd, struct member *m, const struct facts *f)
{
    static struct extent extents[MAX_EXTENTS];
    size_t count = find_extents(fd, f, extents);
    if (count) {
        put_sparse(a, fd, m, extents, count);
        return;
    }
    m->stored = m->size;
    put_member(&a->buffer, m);
    copy_range(a, fd, m->path, 0, m->size);
    pad(a, m->size);
}

static void put_file(struct archive *a, int directory, const char *name, const char *path)
{
    int fd = open_member(directory, name, O_NONBLOCK | O_NOCTTY, path);
    struct facts f, after;
    if (fd < 0)
        return;
    if (facts_at(fd, "", &f) || !S_ISREG(f.mode)) {
        close(fd);
        return;
    }
    bool racy = !settled(a, &f, fd, "");
    struct first_name *first = f.links > 1 ? first_name(&a->names, &f) : NULL;
    uint64_t start = position(a);
    if (first && first->path) {
        struct member m = member_of(path, &f, '1');
        m.target = first->path;
        put_member(&a->buffer, &m);
        note(a, path, &f, start, first->entry + 1, racy);
        close(fd);
        return;
    }
    struct member m = member_of(path, &f, '0');
    m.size = f.size;
    read_xattrs(fd, &m);
    put_content(a, fd, &m, &f);
    free_xattrs(&m);
    if (first) {
        *first = (struct first_name){f.device, f.inode, strdup(path), (uint32_t)a->index.count};
        a->names.count++;
    }
    if (a->indexed)
        racy |= facts_at(fd, "", &after) || after.ctime != f.ctime; /* written to while it was read */
    close(fd);
    note(a, path, &f, start, 0, racy);
}

static void put_directory(struct archive *a, int directory, const char *name, const char *path, struct facts *f)
{
    bool racy = !settled(a, f, directory, name);
    int fd = *name ? open_member(directory, name, O_DIRECTORY, path) : directory;
    struct member m = member_of(path, f, '5');
    uint64_t start = position(a);
    if (fd >= 0)
        read_xattrs(fd, &m);
    put_member(&a->buffer, &m);
    free_xattrs(&m);
    note(a, path, f, start, 0, racy);
    if (fd >= 0 && *name)
        close(fd);
}

static void put_link(struct archive *a, int directory, const char *name, const char *path, struct facts *f)
{
    char target[PATH_MAX];
    bool racy = !settled(a, f, directory, name);
    ssize_t n = readlinkat(directory, name, target, sizeof target - 1);
    if (n <= 0)
        return;
    target[n] = 0;
    struct member m = member_of(path, f, '2');
    m.target = target;
    uint64_t start = position(a);
    put_member(&a->buffer, &m);
    note(a, path, f, start, 0, racy);
}

static void put_by_kind(struct archive *a, struct walk *w)
{
    switch (w->facts.mode & S_IFMT) {
    case S_IFREG:
        put_file(a, w->directory, w->name, w->path);
        break;
    case S_IFDIR:
        put_directory(a, w->directory, w->name, w->path, &w->facts);
        break;
    case S_IFLNK:
        put_link(a, w->directory, w->name, w->path, &w->facts);
        break;
    default:
        a->skipped++;
    }
}

/* The entry that stands for a path in the index that the tree is compared with, or a null pointer. */
static struct index_entry *entry_before(struct archive *a, const char *path)
{
    struct index_entry *entries = a->since.entries;
    int order = 1;
    while (a->next < a->since.count && (order = compare_paths(index_path(&a->since, &entries[a->next]), path)) < 0)
        a->next++;
    return order ? NULL : &entries[a->next];
}

static void put_entry(struct archive *a, struct walk *w)
{
    if (w->leaving)
        return;
    if (w->facts.mount || is_left_out(a, w->path, w->name)) {
        walk_skip(w);
        return;
    }
    struct index_entry *before = entry_before(a, w->path);
    bool unchanged = before && index_matches(before, &w->facts);
    uint64_t members = a->members;
    if (!unchanged)
        put_by_kind(a, w);
    if (before)
        a->found[a->next] = unchanged || a->members > members;
    if (a->buffer.used >= CHUNK)
        flush(a);
}

static void put_tree(struct archive *a, const char *root)
{
    struct place place = find(root, 0, "open");
    int directory = open_top(place.directory, place.name);
    struct facts f;
    struct walk w;
    if (directory < 0 || facts_at(directory, "", &f))
        fail(errno, "open", root);
    struct index_entry *before = entry_before(a, "");
    if (!before || !index_matches(before, &f))
        put_directory(a, directory, "", "", &f);
    if (before)
        a->found[a->next] = 1;
    if (walk_begin(&w, directory))
        fail(errno, "readdir", root);
    int more;
    while ((more = walk_next(&w)) > 0)
        put_entry(a, &w);
    if (more < 0)
        fail(errno, "readdir", root);
    static const uint8_t end[2 * BLOCK];
    put_bytes(&a->buffer, end, sizeof end);
    flush(a);
}

static char *take_body(struct archive *a, struct reader *body, uint32_t *index)
{
    confine(body);
    char *root = take_string(body);
    *index = take_u32(body);
    a->left_out = take_strings(body, &a->left_out_count);
    if (!taken_whole(body))
        fail(EBADMSG, "open", "PERSIST or CHANGES body");
    return root;
}

_Noreturn void persist(struct reader *body)
{
    struct archive a = {0};
    uint32_t index;
    char *root = take_body(&a, body, &index);
    a.indexed = index != 0;
    put_tree(&a, root);
    if (a.indexed && !index_save(&a.index, WORKER_INDEX))
        fail(errno, "write", "index");
    struct writer result = {0};
    put_u64(&result, a.members);
    put_u64(&result, a.skipped);
    succeed(&result);
}

_Noreturn void changes(struct reader *body)
{
    struct archive a = {0};
    uint32_t index;
    char *root = take_body(&a, body, &index);
    if (!index_load(&a.since, WORKER_INDEX))
        fail(EBADF, "index", root);
    a.found = calloc(a.since.count, 1);
    if (!a.found)
        fail(ENOMEM, "calloc", root);
    put_tree(&a, root);
    uint64_t archive = a.offset;
    for (size_t i = 0; i < a.since.count; i++)
        if (!a.found[i])
            put_u32(&a.buffer, (uint32_t)i);
    flush(&a);
    struct writer result = {0};
    put_u64(&result, archive);
    put_u64(&result, a.skipped);
    succeed(&result);
}
