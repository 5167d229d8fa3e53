#include "extract.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h> /* XATTR_LIST_MAX */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CHUNK (256u * 1024)
#define MAX_MAP_LINES 65536 /* numbers in a sparse map */

static int failed(struct extraction *x, const char *operation)
{
    x->operation = operation;
    return -1;
}

static int failed_with(struct extraction *x, int error, const char *operation)
{
    errno = error;
    return failed(x, operation);
}

struct timespec time_of(int64_t nanoseconds)
{
    int64_t seconds = nanoseconds / 1000000000, rest = nanoseconds % 1000000000;
    return rest < 0 ? (struct timespec){seconds - 1, rest + 1000000000} : (struct timespec){seconds, rest};
}

/* --- attributes ---------------------------------------------------------------------------------------------------- */

static bool has_xattr(const struct member *m, const char *name)
{
    for (size_t i = 0; i < m->xattr_count; i++)
        if (!strcmp(m->xattrs[i].name, name))
            return true;
    return false;
}

static int apply_xattrs(struct extraction *x, int fd, const struct member *m, bool had_some)
{
    static char names[XATTR_LIST_MAX];
    ssize_t length = had_some ? flistxattr(fd, names, sizeof names) : 0;
    for (char *name = names; length > 0 && name < names + length; name += strlen(name) + 1)
        if (!has_xattr(m, name) && strcmp(name, "security.selinux"))
            fremovexattr(fd, name);
    for (size_t i = 0; i < m->xattr_count; i++)
        if (fsetxattr(fd, m->xattrs[i].name, m->xattrs[i].value, m->xattrs[i].length, 0))
            return failed(x, "fsetxattr");
    return 0;
}

/* Owner before mode, because chown(2) takes setuid away; times last. A system call less is 2 % of the time that a small file
 * takes, so what is right already is left alone. had_some: whether there may be xattrs. */
static int apply_attributes(struct extraction *x, int fd, const struct member *m, bool had_some)
{
    struct stat st;
    if (fstat(fd, &st))
        return failed(x, "fstat");
    bool owned = st.st_uid == m->uid && st.st_gid == m->gid;
    if (!owned && fchown(fd, m->uid, m->gid))
        return failed(x, "fchown");
    if (apply_xattrs(x, fd, m, had_some)) /* an ACL is seen in the mode */
        return -1;
    if ((!owned || had_some || m->xattr_count || (st.st_mode & 07777) != m->mode) && fchmod(fd, m->mode))
        return failed(x, "fchmod");
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time_of(m->mtime)};
    return futimens(fd, times) ? failed(x, "futimens") : 0;
}

/* --- the stack of open directories ---------------------------------------------------------------------------------- */

static struct open_directory *top(struct extraction *x) { return &x->stack[x->depth - 1]; }

static void copy_attributes(struct open_directory *d, const struct member *m)
{
    d->attributes = *m;
    d->attributes.xattrs = xrealloc(NULL, (m->xattr_count + 1) * sizeof *m->xattrs);
    for (size_t i = 0; i < m->xattr_count; i++) {
        void *value = xrealloc(NULL, m->xattrs[i].length + 1);
        memcpy(value, m->xattrs[i].value, m->xattrs[i].length);
        d->attributes.xattrs[i] = (struct xattr){strdup(m->xattrs[i].name), value, m->xattrs[i].length};
    }
    d->has_member = true;
}

static void free_directory(struct open_directory *d)
{
    for (size_t i = 0; d->has_member && i < d->attributes.xattr_count; i++) {
        free((void *)(uintptr_t)d->attributes.xattrs[i].name);
        free((void *)(uintptr_t)d->attributes.xattrs[i].value);
    }
    if (d->has_member)
        free(d->attributes.xattrs);
    for (size_t i = 0; i < d->count; i++)
        free(d->names[i]);
    free(d->names);
}

static void add_name(struct extraction *x, const char *name, size_t length)
{
    struct open_directory *d = top(x);
    if (d->count && strlen(d->names[d->count - 1]) == length && !strncmp(d->names[d->count - 1], name, length))
        return;
    if (d->count == d->room) {
        d->room = d->room ? 2 * d->room : 16;
        d->names = xrealloc(d->names, d->room * sizeof *d->names);
    }
    d->names[d->count++] = strndup(name, length);
}

static int push(struct extraction *x, int fd, const char *path, size_t length, bool fresh)
{
    struct facts f;
    if (facts_at(fd, "", &f))
        return failed(x, "fstat");
    bool bequeaths = fgetxattr(fd, "system.posix_acl_default", NULL, 0) > 0;
    if (x->depth == x->stack_room) {
        x->stack_room = x->stack_room ? 2 * x->stack_room : 16;
        x->stack = xrealloc(x->stack, x->stack_room * sizeof *x->stack);
    }
    x->stack[x->depth] = (struct open_directory){.path_length = length, .device = f.device, .inode = f.inode,
                                                 .foreign = x->depth > 0 && f.mount, .fresh = fresh,
                                                 .bequeaths = bequeaths};
    x->depth++;
    if (length + 1 > x->path_room)
        x->path = xrealloc(x->path, x->path_room = 2 * (length + 1));
    memmove(x->path, path, length);
    x->path[length] = 0;
    return 0;
}

void extraction_begin(struct extraction *x, int root, bool keep_extras, bool keep_root)
{
    *x = (struct extraction){.root = root, .at = fcntl(root, F_DUPFD_CLOEXEC, 5), .keep_extras = keep_extras,
                             .keep_root = keep_root, .uid = geteuid(), .gid = getegid(), .operation = ""};
    push(x, x->at, "", 0, false);
}

/* Remove what is in the directory on top but not in the archive. */
static int remove_extras(struct extraction *x)
{
    const struct open_directory *d = top(x);
    struct walk w;
    int more;
    if (walk_begin(&w, fcntl(x->at, F_DUPFD_CLOEXEC, 5)))
        return failed(x, "readdir");
    for (size_t i = 0; (more = walk_next(&w)) > 0;) {
        walk_skip(&w);
        while (i < d->count && strcmp(d->names[i], w.name) < 0) /* both are in byte order */
            i++;
        if (w.facts.mount || (i < d->count && !strcmp(d->names[i], w.name)))
            continue;
        int64_t removed = remove_tree(w.directory, w.name);
        if (removed < 0 && errno != EBUSY) {
            walk_end(&w);
            return failed(x, "remove");
        }
        x->removed += removed > 0 ? (uint64_t)removed : 0;
    }
    walk_end(&w);
    return more < 0 ? failed(x, "readdir") : 0;
}

static int finish_top(struct extraction *x)
{
    struct open_directory *d = top(x);
    if (d->foreign)
        return 0;
    if (!x->keep_extras && !d->fresh && remove_extras(x))
        return -1;
    if (d->has_member && !(x->keep_root && x->depth == 1))
        return apply_attributes(x, x->at, &d->attributes, true);
    return 0;
}

static int leave(struct extraction *x)
{
    if (finish_top(x))
        return -1;
    struct open_directory *above = &x->stack[x->depth - 2];
    struct facts f;
    int up = openat(x->at, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (up < 0 || facts_at(up, "", &f))
        return failed(x, "open");
    close(x->at);
    x->at = up;
    free_directory(top(x));
    x->depth--;
    x->path[above->path_length] = 0;
    if (f.inode != above->inode || f.device != above->device)
        return failed_with(x, ESTALE, "open"); /* somebody moves directories under our hands */
    return 0;
}

/* Make the name a directory, whatever it was, and enter it. */
static int make_and_enter(struct extraction *x, const char *path, size_t length, const char *name)
{
    int fd = -1;
    bool fresh = false;
    for (int attempt = 0; attempt < 2 && fd < 0; attempt++) {
        fresh = mkdirat(x->at, name, 0700) == 0;
        if (!fresh && errno != EEXIST)
            return failed(x, "mkdir");
        fd = openat(x->at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && errno != ENOTDIR && errno != ELOOP)
            return failed(x, "open");
        if (fd < 0 && unlinkat(x->at, name, 0))
            return failed(x, "unlink");
    }
    if (fd < 0)
        return failed_with(x, EEXIST, "mkdir");
    if (push(x, fd, path, length, fresh)) {
        close(fd);
        return -1;
    }
    close(x->at);
    x->at = fd;
    return 0;
}

static bool is_within(const char *path, size_t length, const char *directory, size_t directory_length)
{
    return !directory_length || (length >= directory_length && !strncmp(path, directory, directory_length) &&
                                 (length == directory_length || path[directory_length] == '/'));
}

int extraction_enter(struct extraction *x, const char *path, size_t length)
{
    while (!is_within(path, length, x->path, top(x)->path_length))
        if (leave(x))
            return -1;
    while (top(x)->path_length < length && !top(x)->foreign) {
        size_t start = top(x)->path_length + (top(x)->path_length > 0);
        size_t end = start;
        while (end < length && path[end] != '/')
            end++;
        char name[NAME_MAX + 1];
        if (end - start > NAME_MAX)
            return failed_with(x, ENAMETOOLONG, "mkdir");
        memcpy(name, path + start, end - start);
        name[end - start] = 0;
        add_name(x, name, end - start);
        if (make_and_enter(x, path, end, name))
            return -1;
    }
    return 0;
}

int extraction_end(struct extraction *x)
{
    while (x->depth > 1)
        if (leave(x))
            return -1;
    return finish_top(x);
}

/* --- members -------------------------------------------------------------------------------------------------------- */

/* Take the name away from whatever has it. */
static int clear_name(struct extraction *x, const char *name)
{
    int64_t removed = remove_tree(x->at, name);
    if (removed < 0)
        return failed(x, "remove");
    return 0;
}

static int write_data(struct extraction *x, struct tar_input *in, int fd, off_t offset, uint64_t length)
{
    static uint8_t chunk[CHUNK];
    while (length) {
        ssize_t n = tar_data(in, chunk, length < CHUNK ? (size_t)length : CHUNK);
        if (n <= 0)
            return failed_with(x, EPROTO, "read");
        for (ssize_t at = 0, w; at < n; at += w, offset += w)
            if ((w = pwrite(fd, chunk + at, (size_t)(n - at), offset)) < 0)
                return failed(x, "write");
        length -= (uint64_t)n;
    }
    return 0;
}

/* A line of the sparse map: a decimal number. */
static bool read_map_number(struct tar_input *in, uint64_t *read, uint64_t *value)
{
    *value = 0;
    for (int digits = 0; digits < 20; digits++) {
        uint8_t byte;
        if (tar_data(in, &byte, 1) != 1)
            return false;
        ++*read;
        if (byte == '\n')
            return digits > 0;
        if (byte < '0' || byte > '9')
            return false;
        *value = *value * 10 + (uint64_t)(byte - '0');
    }
    return false;
}

static int write_sparse(struct extraction *x, struct tar_input *in, int fd, const struct member *m)
{
    uint64_t read = 0, count;
    if (!read_map_number(in, &read, &count) || count > MAX_MAP_LINES)
        return failed_with(x, EPROTO, "sparse map");
    uint64_t *map = xrealloc(NULL, (2 * count + 1) * sizeof *map);
    int result = 0;
    for (uint64_t i = 0; i < 2 * count && !result; i++)
        if (!read_map_number(in, &read, &map[i]))
            result = failed_with(x, EPROTO, "sparse map");
    uint8_t rest[BLOCK];
    for (size_t padding = (BLOCK - read % BLOCK) % BLOCK; padding && !result;) {
        ssize_t n = tar_data(in, rest, padding);
        if (n <= 0)
            result = failed_with(x, EPROTO, "sparse map");
        else
            padding -= (size_t)n;
    }
    for (uint64_t i = 0, end = 0; i < count && !result; i++) {
        uint64_t offset = map[2 * i], length = map[2 * i + 1];
        if (offset < end || length > m->size || offset > m->size - length)
            result = failed_with(x, EPROTO, "sparse map");
        else
            result = write_data(x, in, fd, (off_t)offset, length);
        end = offset + length;
    }
    free(map);
    if (!result && ftruncate(fd, (off_t)m->size))
        result = failed(x, "ftruncate");
    return result;
}

/* The file that has the name now, or -1. Not one with further names, which would change with it; what can't be opened for
 * writing, as a program that runs, is replaced like any other. */
static int open_old(struct extraction *x, const struct member *m, const char *name)
{
    struct facts f;
    if (!x->rewrite || facts_at(x->at, name, &f) || !S_ISREG(f.mode) || f.links != 1 || f.mount)
        return -1;
    int fd = openat(x->at, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    off_t keep = m->sparse ? 0 : (off_t)m->size; /* what was written over needs no truncation; holes do */
    if (fd >= 0 && f.size > (uint64_t)keep && ftruncate(fd, keep)) {
        close(fd);
        return -1;
    }
    return fd;
}

static int open_new(struct extraction *x, const struct member *m, const char *name)
{
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    mode_t mode = m->mode & 0700; /* the rest comes with the owner */
    if (x->uid == m->uid && x->gid == m->gid)
        mode = m->mode & 0777;
    int fd = openat(x->at, name, flags, mode);
    if (fd < 0 && errno == EEXIST) {
        if (clear_name(x, name))
            return -1;
        fd = openat(x->at, name, flags, mode);
    }
    return fd < 0 ? failed(x, "open") : fd;
}

static int extract_file(struct extraction *x, struct tar_input *in, const struct member *m, const char *name)
{
    int fd = open_old(x, m, name);
    bool old = fd >= 0;
    if (!old && (fd = open_new(x, m, name)) < 0)
        return -1;
    int result = m->sparse ? write_sparse(x, in, fd, m) : write_data(x, in, fd, 0, m->size);
    if (!result)
        result = apply_attributes(x, fd, m, old || top(x)->bequeaths);
    if (close(fd) && !result)
        result = failed(x, "close");
    return result;
}

static int extract_symlink(struct extraction *x, const struct member *m, const char *name)
{
    if (symlinkat(m->target, x->at, name)) {
        if (errno != EEXIST)
            return failed(x, "symlink");
        if (clear_name(x, name))
            return -1;
        if (symlinkat(m->target, x->at, name))
            return failed(x, "symlink");
    }
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time_of(m->mtime)};
    struct facts f;
    if (facts_at(x->at, name, &f))
        return failed(x, "lstat");
    if ((f.uid != m->uid || f.gid != m->gid) && fchownat(x->at, name, m->uid, m->gid, AT_SYMLINK_NOFOLLOW))
        return failed(x, "fchownat");
    return utimensat(x->at, name, times, AT_SYMLINK_NOFOLLOW) ? failed(x, "utimensat") : 0;
}

/* Open the directory that a link's target is in, component by component from the root, following nothing. */
static int open_parent(struct extraction *x, const char *path, const char **name)
{
    int at = fcntl(x->root, F_DUPFD_CLOEXEC, 5);
    for (const char *slash; at >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
        char part[NAME_MAX + 1];
        size_t length = (size_t)(slash - path);
        int next = -1;
        if (length <= NAME_MAX) {
            memcpy(part, path, length);
            part[length] = 0;
            next = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        }
        close(at);
        at = next;
    }
    *name = path;
    return at;
}

static int extract_hard_link(struct extraction *x, const struct member *m, const char *name)
{
    const char *target;
    struct facts f;
    int directory = open_parent(x, m->target, &target);
    if (directory < 0 || facts_at(directory, target, &f) || !S_ISREG(f.mode)) {
        if (directory >= 0)
            close(directory);
        return failed_with(x, ENOENT, "link");
    }
    int result = linkat(directory, target, x->at, name, 0);
    if (result && errno == EEXIST) {
        struct facts there;
        bool done = facts_at(x->at, name, &there) == 0 && there.inode == f.inode && there.device == f.device;
        result = done ? 0 : clear_name(x, name);
        if (!done && !result)
            result = linkat(directory, target, x->at, name, 0);
    }
    close(directory);
    return result ? failed(x, "link") : 0;
}

static int extract_directory(struct extraction *x, const struct member *m, const char *path)
{
    if (extraction_enter(x, path, strlen(path)))
        return -1;
    if (!top(x)->foreign)
        copy_attributes(top(x), m);
    return 0;
}

int extract(struct extraction *x, struct tar_input *in, const struct member *m)
{
    /* The order rules out duplicates, changes of kind and members below a link, at the price of one comparison. */
    if (x->last && compare_paths(x->last, m->path) >= 0)
        return failed_with(x, EPROTO, "order");
    free(x->last);
    x->last = strdup(m->path);
    x->members++;
    if (m->type == '5')
        return extract_directory(x, m, m->path);
    const char *slash = strrchr(m->path, '/'), *name = slash ? slash + 1 : m->path;
    size_t parent = slash ? (size_t)(slash - m->path) : 0;
    if (strlen(name) > NAME_MAX)
        return failed_with(x, ENAMETOOLONG, "open");
    if (extraction_enter(x, m->path, parent))
        return -1;
    struct open_directory *d = top(x);
    if (d->foreign)
        return 0;
    add_name(x, name, strlen(name));
    int result = m->type == '0' ? extract_file(x, in, m, name)
               : m->type == '1' ? extract_hard_link(x, m, name) : extract_symlink(x, m, name);
    if (result && errno == EBUSY) /* a file that something is mounted on */
        result = 0;
    return result;
}
