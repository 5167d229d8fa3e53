#include "index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tar.h"

#define PATIENCE INT64_C(100000000) /* nanoseconds: ten ticks of the slowest clock in use (CONFIG_HZ=100) */

struct stored_header {
    char magic[8];
    uint64_t count, names;
};

static const char magic[8] = "INDEX 1";

struct index_entry *index_add(struct index *index, const char *path, uint64_t offset, uint64_t length)
{
    if (index->count == index->room) {
        index->room = index->room ? 2 * index->room : 256;
        index->entries = xrealloc(index->entries, index->room * sizeof *index->entries);
    }
    struct index_entry *entry = &index->entries[index->count++];
    *entry = (struct index_entry){.offset = offset, .length = length, .path = index->names.used};
    put_bytes(&index->names, path, strlen(path) + 1);
    return entry;
}

const char *index_path(const struct index *index, const struct index_entry *entry)
{
    return (const char *)index->names.bytes + entry->path;
}

struct index_entry *index_find(const struct index *index, const char *path)
{
    size_t low = 0, high = index->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = compare_paths(index_path(index, &index->entries[middle]), path);
        if (!order)
            return &index->entries[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

void index_note(struct index_entry *entry, const struct facts *f)
{
    entry->size = f->size;
    entry->inode = f->inode;
    entry->mtime = f->mtime;
    entry->ctime = f->ctime;
    entry->mode = f->mode;
    entry->uid = f->uid;
    entry->gid = f->gid;
}

bool index_matches(const struct index_entry *e, const struct facts *f)
{
    return !e->racy && e->inode == f->inode && e->ctime == f->ctime && e->mtime == f->mtime && e->mode == f->mode &&
           e->uid == f->uid && e->gid == f->gid && (S_ISDIR(f->mode) || e->size == f->size);
}

static void find_parents(const struct index *index)
{
    char *parent = NULL;
    for (size_t i = 1; i < index->count; i++) {
        struct index_entry *entry = &index->entries[i];
        const char *path = index_path(index, entry), *slash = strrchr(path, '/');
        size_t length = slash ? (size_t)(slash - path) : 0;
        const char *before = index_path(index, &index->entries[index->entries[i - 1].parent]);
        if (i > 1 && strlen(before) == length && !strncmp(before, path, length)) { /* a sibling of the one before */
            entry->parent = index->entries[i - 1].parent;
            continue;
        }
        parent = xrealloc(parent, length + 1);
        memcpy(parent, path, length);
        parent[length] = 0;
        struct index_entry *found = index_find(index, parent);
        entry->parent = found ? (uint32_t)(found - index->entries) : 0;
    }
    free(parent);
}

static bool write_all(int fd, const void *bytes, size_t length)
{
    for (const uint8_t *at = bytes; length;) {
        ssize_t n = write(fd, at, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        at += n;
        length -= (size_t)n;
    }
    return true;
}

bool index_save(const struct index *index, int fd)
{
    find_parents(index);
    struct stored_header header = {.count = index->count, .names = index->names.used};
    memcpy(header.magic, magic, sizeof magic);
    return write_all(fd, &header, sizeof header) &&
           write_all(fd, index->entries, index->count * sizeof *index->entries) &&
           write_all(fd, index->names.bytes, index->names.used);
}

bool index_load(struct index *index, int fd)
{
    struct stat st;
    *index = (struct index){0};
    if (fstat(fd, &st) || (size_t)st.st_size < sizeof(struct stored_header))
        return false;
    size_t size = (size_t)st.st_size;
    uint8_t *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED)
        return false;
    const struct stored_header *header = (const void *)bytes;
    if (memcmp(header->magic, magic, sizeof magic) || !header->count ||
        size != sizeof *header + header->count * sizeof(struct index_entry) + header->names)
        return false;
    index->entries = (struct index_entry *)(void *)(bytes + sizeof *header);
    index->count = header->count;
    index->names = (struct writer){(uint8_t *)(index->entries + index->count), header->names, header->names};
    index->mapped = bytes;
    index->mapped_size = size;
    return true;
}

int64_t file_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

bool wait_until_later_than(int64_t ctime)
{
    for (;;) {
        int64_t now = file_clock();
        if (now > ctime)
            return true;
        if (ctime - now > PATIENCE)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL); /* the clock has no event to wait for */
    }
}

/* Ask the file system itself: change the root's mode to what it is, twice, and see whether its ctime moves although the clock
 * has not. */
static bool tells_changes_apart(struct index_entry *root_entry, int root)
{
    struct facts original, first, second;
    if (facts_at(root, "", &original) || fchmod(root, original.mode & 07777) || facts_at(root, "", &first) ||
        fchmod(root, original.mode & 07777) || facts_at(root, "", &second))
        return false;
    if (root_entry->ctime == original.ctime)
        root_entry->ctime = second.ctime;
    return second.ctime > first.ctime && file_clock() <= first.ctime;
}

bool settle(struct index *index, int root, int64_t latest)
{
    return file_clock() > latest || tells_changes_apart(&index->entries[0], root) || wait_until_later_than(latest);
}
