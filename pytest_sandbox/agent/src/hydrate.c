/* A tree made equal to an archive: wholly, or by what differs from its index. */
#include "archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blake2b.h"
#include "extract.h"
#include "files.h"
#include "index.h"

#define CHUNK (256 * 1024)

enum { HYDRATE_MERGE = 1, RESTORE_PARANOID = 1, QUIET = 2 };

/* The root directory, made anew if a test has removed it or put something else in its place. */
static int open_or_make_root(const char *path)
{
    struct place place = find(path, 0, "open");
    int root = open_top(place.directory, place.name);
    if (root >= 0)
        return root;
    if ((errno == ENOTDIR || errno == ELOOP) && unlinkat(place.directory, place.name, 0))
        fail(errno, "unlink", path);
    if (mkdirat(place.directory, place.name, 0755))
        fail(errno, "mkdir", path);
    root = open_top(place.directory, place.name);
    if (root < 0)
        fail(errno, "open", path);
    return root;
}

static int same_root(int root)
{
    return fcntl(root, F_DUPFD_CLOEXEC, 5);
}

/* Note what every entry of a fresh tree looks like. What is not as it should be stays racy, and the next RESTORE repairs it. */
static void note_tree(struct index *index, int root)
{
    struct walk w;
    struct facts f;
    int64_t latest = 0;
    for (size_t i = 0; i < index->count; i++)
        index->entries[i].racy = 1;
    if (facts_at(root, "", &f) == 0) {
        index_note(&index->entries[0], &f);
        index->entries[0].racy = 0;
        latest = f.ctime;
    }
    if (walk_begin(&w, same_root(root)))
        return;
    for (size_t i = 1; walk_next(&w) > 0;) {
        if (w.leaving)
            continue;
        while (i < index->count && compare_paths(index_path(index, &index->entries[i]), w.path) < 0)
            i++;
        if (i == index->count)
            break;
        struct index_entry *entry = &index->entries[i];
        if (compare_paths(index_path(index, entry), w.path) != 0)
            continue;
        uint32_t type = entry->mode;
        bool as_made = type == (w.facts.mode & S_IFMT);
        index_note(entry, &w.facts);
        entry->racy = !as_made;
        latest = w.facts.ctime > latest ? w.facts.ctime : latest;
    }
    walk_end(&w);
    if (!settle(index, root, latest))
        for (size_t i = 0; i < index->count; i++)
            index->entries[i].racy |= index->entries[i].ctime >= file_clock();
}

static mode_t type_of(char letter)
{
    return letter == '5' ? S_IFDIR : letter == '2' ? S_IFLNK : S_IFREG;
}

_Noreturn void hydrate(struct reader *body)
{
    confine(body);
    char *root_path = take_string(body);
    bool indexed = take_u32(body) != 0;
    uint8_t flags = take_u8(body);
    if (!taken_whole(body))
        fail(EBADMSG, "open", "HYDRATE body");
    int root = open_or_make_root(root_path);
    struct extraction x;
    struct tar_input in;
    struct member m = {0};
    struct index index = {0};
    extraction_begin(&x, root, flags & HYDRATE_MERGE, flags & HYDRATE_MERGE);
    x.rewrite = flags & QUIET;
    tar_begin(&in, input);
    uint64_t start = 0;
    int more;
    while ((more = tar_next(&in, &m)) > 0) {
        if (extract(&x, &in, &m))
            fail(errno, x.operation, m.path);
        if (in.data_left && m.type != '0')
            fail(EPROTO, "hydrate", m.path);
        if (indexed) {
            uint64_t end = in.offset + in.data_left + in.padding;
            struct index_entry *entry = index_add(&index, m.path, start, end - start);
            entry->mode = type_of(m.type);
            if (m.type == '1') {
                struct index_entry *first = index_find(&index, m.target);
                entry->first = first ? (uint32_t)(first - index.entries) + 1 : 0;
            }
            start = end;
        }
    }
    if (more < 0 || !tar_ends_here(&in))
        fail(EPROTO, "hydrate", more < 0 ? in.error : "bytes after its end");
    if (indexed && (!index.count || *index_path(&index, &index.entries[0])))
        fail(EPROTO, "hydrate", "an archive without its root");
    if (extraction_end(&x))
        fail(errno, x.operation, x.path);
    if (indexed) {
        note_tree(&index, root);
        if (!index_save(&index, WORKER_INDEX))
            fail(errno, "write", "index");
    }
    struct writer result = {0};
    put_u64(&result, x.members);
    put_u64(&result, x.removed);
    succeed(&result);
}

/* --- RESTORE ------------------------------------------------------------------------------------------------------- */

struct restoration {
    struct index index;
    int root;
    uint8_t *state;          /* of each entry: */
    uint8_t (*digests)[DIGEST]; /* of each, what its content should have; a null pointer unless RESTORE is paranoid */
    bool quiet; /* no process is left that has a file open or mapped */
    uint64_t compared, removed, repaired, fetched;
};

enum { NEEDED = 1, TOUCHED = 2 }; /* to be brought from the archive; a directory whose times our own work has changed */

static void need(struct restoration *s, size_t entry)
{
    s->state[entry] |= NEEDED;
    if (entry)
        s->state[s->index.entries[entry].parent] |= TOUCHED;
}

static void compare(struct restoration *s, size_t entry, const struct facts *f)
{
    s->compared++;
    if (!index_matches(&s->index.entries[entry], f))
        need(s, entry);
}

static void take_digests(struct restoration *s)
{
    size_t size = s->index.count * DIGEST, taken = 0;
    s->digests = xrealloc(NULL, size);
    for (size_t n; taken < size; taken += n)
        if (!(n = input((uint8_t *)s->digests + taken, size - taken)))
            fail(EPROTO, "restore", "digests");
}

/* Compare the content of a file that looks unchanged. What can't be read is fetched, as is what the host has no digest of. */
static void compare_content(struct restoration *s, size_t entry, const struct walk *w)
{
    static uint8_t chunk[CHUNK];
    struct blake2b hash;
    uint8_t digest[DIGEST];
    int fd = openat(w->directory, w->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    ssize_t n = -1;
    blake2b_begin(&hash);
    while (fd >= 0 && (n = read(fd, chunk, sizeof chunk)) > 0)
        blake2b_add(&hash, chunk, (size_t)n);
    blake2b_end(&hash, digest);
    if (fd >= 0)
        close(fd);
    if (n < 0 || memcmp(digest, s->digests[entry], DIGEST))
        need(s, entry);
}

/* Remove an entry that the snapshot lacks, or that is of another kind there. */
static void remove_entry(struct restoration *s, struct walk *w, size_t parent)
{
    walk_skip(w);
    if (w->facts.mount)
        return;
    int64_t removed = remove_tree(w->directory, w->name);
    if (removed < 0 && errno != EBUSY)
        fail(errno, "remove", w->path);
    s->removed += removed > 0 ? (uint64_t)removed : 0;
    s->state[parent] |= TOUCHED;
}

static size_t find_parent(struct restoration *s, const struct walk *w)
{
    const char *slash = strrchr(w->path, '/');
    char *parent = strndup(w->path, slash ? (size_t)(slash - w->path) : 0);
    struct index_entry *entry = parent ? index_find(&s->index, parent) : NULL;
    free(parent);
    return entry ? (size_t)(entry - s->index.entries) : 0;
}

/* Compare the whole tree with the index, removing what it lacks. Both are in the same order, so one pass over each is enough. */
static void compare_tree(struct restoration *s)
{
    struct index *index = &s->index;
    struct facts f;
    struct walk w;
    size_t i = 1;
    int more;
    if (facts_at(s->root, "", &f))
        fail(errno, "stat", "the root");
    compare(s, 0, &f);
    if (walk_begin(&w, same_root(s->root)))
        fail(errno, "readdir", "the root");
    while ((more = walk_next(&w)) > 0) {
        if (w.leaving)
            continue;
        int order = 1;
        while (i < index->count && (order = compare_paths(index_path(index, &index->entries[i]), w.path)) < 0)
            need(s, i++);
        if (i == index->count || order > 0) {
            remove_entry(s, &w, find_parent(s, &w));
            continue;
        }
        const struct index_entry *entry = &index->entries[i];
        if ((entry->mode & S_IFMT) != (w.facts.mode & S_IFMT)) {
            need(s, i);
            remove_entry(s, &w, entry->parent);
        } else if (w.facts.mount) {
            walk_skip(&w);
        } else {
            compare(s, i, &w.facts);
            /* A further name of a file needs no look of its own: by its inode it is the first one's. */
            if (s->digests && S_ISREG(w.facts.mode) && !entry->first && !(s->state[i] & NEEDED))
                compare_content(s, i, &w);
        }
        i++;
    }
    if (more < 0)
        fail(errno, "readdir", w.path);
    walk_end(&w);
    while (i < index->count)
        need(s, i++);
}

/* A file with several names is repaired with all of them: a new first name, and the others linked to it anew. */
static void need_whole_groups(struct restoration *s)
{
    const struct index_entry *entries = s->index.entries;
    for (size_t i = 0; i < s->index.count; i++)
        if (entries[i].first && s->state[i] & NEEDED)
            need(s, entries[i].first - 1);
    for (size_t i = 0; i < s->index.count; i++)
        if (entries[i].first && s->state[entries[i].first - 1] & NEEDED)
            need(s, i);
}

static size_t ask_for_needed(struct restoration *s)
{
    struct writer ranges = {0};
    size_t needed = 0;
    uint64_t start = 0, end = 0;
    for (size_t i = 0; i < s->index.count; i++) {
        const struct index_entry *e = &s->index.entries[i];
        if (!(s->state[i] & NEEDED))
            continue;
        needed++;
        s->fetched += e->length;
        if (e->offset == end && end) {
            end += e->length;
            continue;
        }
        if (end > start) {
            put_u64(&ranges, start);
            put_u64(&ranges, end - start);
        }
        start = e->offset;
        end = e->offset + e->length;
    }
    if (end > start) {
        put_u64(&ranges, start);
        put_u64(&ranges, end - start);
    }
    output(ranges.bytes, ranges.used);
    close(WORKER_OUTPUT);
    free(ranges.bytes);
    return needed;
}

static void take_needed(struct restoration *s, size_t needed)
{
    struct extraction x;
    struct tar_input in;
    struct member m = {0};
    extraction_begin(&x, same_root(s->root), true, false);
    x.rewrite = s->quiet;
    tar_begin(&in, input);
    for (size_t i = 0; i < s->index.count && needed; i++) {
        if (!(s->state[i] & NEEDED))
            continue;
        const char *expected = index_path(&s->index, &s->index.entries[i]);
        if (tar_next(&in, &m) <= 0 || strcmp(m.path, expected))
            fail(EPROTO, "restore", in.error ? in.error : expected);
        if (extract(&x, &in, &m))
            fail(errno, x.operation, m.path);
        needed--;
        s->repaired++;
    }
    if (extraction_end(&x))
        fail(errno, x.operation, x.path);
}

/* Give the directories that we worked in their times back, and note what everything that was repaired looks like now. */
static void note_repaired(struct restoration *s)
{
    struct extraction x;
    int64_t latest = 0;
    extraction_begin(&x, same_root(s->root), true, true);
    for (size_t i = 0; i < s->index.count; i++) {
        if (!s->state[i])
            continue;
        struct index_entry *e = &s->index.entries[i];
        const char *path = index_path(&s->index, e), *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
        if (extraction_enter(&x, path, slash ? (size_t)(slash - path) : 0))
            fail(errno, x.operation, path);
        int directory = *path ? x.at : s->root;
        struct facts f;
        bool there = facts_at(directory, *path ? name : "", &f) == 0 && (!f.mount || !*path) && !x.stack[x.depth - 1].foreign;
        if (there && s->state[i] == TOUCHED) {
            struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time_of(e->mtime)};
            if (*path ? utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW) : futimens(directory, times))
                fail(errno, "utimensat", path);
        }
        /* Whatever is not as the snapshot has it even now is tried again next time. The index is shared with the agent, and this
         * worker may be killed at any point, so what the snapshot has is never overwritten. */
        e->racy = 1;
        if (!there || facts_at(directory, *path ? name : "", &f) || e->mode != f.mode || e->uid != f.uid || e->gid != f.gid ||
            e->mtime != f.mtime || (!S_ISDIR(f.mode) && e->size != f.size))
            continue;
        index_note(e, &f);
        e->racy = 0;
        latest = f.ctime > latest ? f.ctime : latest;
    }
    bool later = settle(&s->index, s->root, latest);
    for (size_t i = 0; i < s->index.count && !later; i++)
        if (s->state[i] && s->index.entries[i].ctime >= file_clock())
            s->index.entries[i].racy = 1;
}

_Noreturn void restore(struct reader *body)
{
    struct restoration s = {0};
    confine(body);
    char *root = take_string(body);
    (void)take_u32(body); /* the agent has looked the index up */
    uint8_t flags = take_u8(body);
    s.quiet = flags & QUIET;
    if (!taken_whole(body))
        fail(EBADMSG, "open", "RESTORE body");
    if (!index_load(&s.index, WORKER_INDEX))
        fail(EBADF, "index", root);
    s.root = open_or_make_root(root);
    s.state = calloc(s.index.count, 1);
    if (!s.state)
        fail(ENOMEM, "calloc", root);
    if (flags & RESTORE_PARANOID)
        take_digests(&s);
    compare_tree(&s);
    need_whole_groups(&s);
    size_t needed = ask_for_needed(&s);
    take_needed(&s, needed);
    note_repaired(&s);
    struct writer result = {0};
    put_u64(&result, s.compared);
    put_u64(&result, s.removed);
    put_u64(&result, s.repaired);
    put_u64(&result, s.fetched);
    succeed(&result);
}
