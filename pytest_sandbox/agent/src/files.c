#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "archive.h"
#include "path.h"
#include "process.h"
#include "user.h"
#include "watch.h"
#include "walk.h"

#define CHUNK (256 * 1024)
#define MAX_LINKS 40 /* as the kernel (path_resolution(7)) */
enum { WRITE_PARENTS = 1, WRITE_APPEND = 2, WRITE_EXCLUSIVE = 4 };

static char *temporary; /* to be removed if the operation ends before its time */
static int temporary_parent;
static struct root root; /* that the operation is confined to, if any */

static void discard_temporary(void)
{
    if (temporary)
        unlinkat(temporary_parent, temporary, 0);
}

void succeed(const struct writer *result)
{
    report(WORKER_LINK, REPORT_RESULT, result ? result->bytes : NULL, result ? result->used : 0);
    _exit(0);
}

void fail(int error, const char *operation, const char *subject)
{
    discard_temporary();
    report_failure(WORKER_LINK, error, operation, subject);
    _exit(0);
}

void output(const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    while (length) {
        ssize_t n = write(WORKER_OUTPUT, at, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            _exit(0); /* nobody reads any more: the operation was cancelled */
        at += n;
        length -= (size_t)n;
    }
}

size_t input(void *bytes, size_t room)
{
    for (;;) {
        ssize_t n = read(WORKER_INPUT, bytes, room);
        if (n > 0)
            return (size_t)n;
        if (n == 0)
            break;
        if (errno != EINTR)
            fail(errno, "read", "input");
    }
    static bool said;
    char word;
    if (!said && recv(WORKER_LINK, &word, 1, 0) != 1)
        fail(ECANCELED, "read", "input"); /* the agent died, and this is not all of the input */
    said = true;
    return 0;
}

static void die_with_agent(void) { prctl(PR_SET_PDEATHSIG, SIGTERM); }

static void take_user(struct reader *r)
{
    char *spec = take_string(r);
    struct user user;
    if (r->bad)
        return;
    if (!find_user(spec, &user))
        fail(ENOENT, "user", spec);
    if (act_as(&user))
        fail(errno, "seteuid", spec);
    die_with_agent(); /* seteuid(2) has taken that back */
}

/* What every body of a file operation begins with. */
static void take_user_and_root(struct reader *r)
{
    take_user(r);
    confine(r);
}

static void check_whole(const struct reader *r)
{
    if (!taken_whole(r))
        fail(EBADMSG, "open", "body");
}

static void succeed_with_count(uint64_t count)
{
    struct writer w = {0};
    put_u64(&w, count);
    succeed(&w);
}

/* --- where paths lead ---------------------------------------------------------------------------------------------- */

void confine(struct reader *r)
{
    char *path = take_string(r);
    if (!r->bad && !root_open(&root, path))
        fail(errno, "open", path);
}

/* A path that could not be gone. */
static _Noreturn void fail_path(const char *operation, const char *path)
{
    if (errno == EXDEV)
        fail(EPERM, "confine", path);
    fail(errno, operation, path);
}

struct place find(const char *path, int how, const char *operation)
{
    struct place p;
    if (!locate(&root, path, how, &p))
        fail_path(operation, path);
    return p;
}

/* Beneath a root the links have been followed when a place is found. */
static int no_further_link(void) { return root.fd < 0 ? 0 : AT_SYMLINK_NOFOLLOW; }

static int open_file(const char *path, int flags, const char *operation)
{
    int fd = open_path(&root, path, flags | O_CLOEXEC);
    if (fd < 0)
        fail_path(operation, path);
    return fd;
}

static void make_parents(const char *path, mode_t mode);
static char *follow_links(const char *path);

/* The directory of a path's last component, and that component. */
static struct place split(char *path, int how, const char *operation)
{
    struct place p = {-1, path};
    if (root.fd >= 0) {
        p = find(path, how, operation);
    } else {
        if (how & PATH_PARENTS)
            make_parents(path, 0777 & ~022u);
        if (how & PATH_FOLLOW)
            path = follow_links(path);
        size_t length = strlen(path);
        while (length > 1 && path[length - 1] == '/')
            path[--length] = 0;
        char *slash = strrchr(path, '/');
        char *parent = slash > path ? strndup(path, (size_t)(slash - path)) : strdup(slash ? "/" : ".");
        p.name = slash ? slash + 1 : path;
        p.directory = parent ? open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1; /* it may be one that can't be listed */
        free(parent);
    }
    if (!*p.name || !strcmp(p.name, ".") || !strcmp(p.name, ".."))
        fail(how & PATH_FOLLOW ? EISDIR : EINVAL, operation, path);
    if (p.directory < 0)
        fail(errno, operation, path);
    return p;
}

/* --- READ -------------------------------------------------------------------------------------------------------- */

static void read_file(struct reader *r)
{
    take_user_and_root(r);
    char *path = take_string(r);
    uint64_t offset = take_u64(r), length = take_u64(r), sent = 0;
    check_whole(r);
    int fd = open_file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, "open"); /* a FIFO without a writer must not hang */
    struct stat st;
    if (fstat(fd, &st))
        fail(errno, "open", path);
    if (S_ISDIR(st.st_mode))
        fail(EISDIR, "open", path);
    if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode))
        fail(EINVAL, "open", path);
    if (offset > INT64_MAX || (offset && lseek(fd, (off_t)offset, SEEK_SET) < 0))
        fail(offset > INT64_MAX ? EINVAL : errno, "lseek", path);
    uint8_t *chunk = xrealloc(NULL, CHUNK);
    while (sent < length) { /* to the end and not to st_size, which is 0 under /proc */
        size_t room = length - sent < CHUNK ? (size_t)(length - sent) : CHUNK;
        ssize_t n = read(fd, chunk, room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            fail(errno, "read", path);
        if (n == 0)
            break;
        output(chunk, (size_t)n);
        sent += (uint64_t)n;
    }
    succeed_with_count(sent);
}

/* --- WRITE ------------------------------------------------------------------------------------------------------- */

static void make_parents(const char *path, mode_t mode)
{
    char *parent = strdup(path);
    if (!parent)
        fail(ENOMEM, "mkdir", path);
    for (char *slash = strchr(parent + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(parent, mode) && errno != EEXIST) {
            struct stat st;
            int error = errno; /* EROFS or EACCES come before EEXIST on some file systems */
            if (stat(parent, &st) || !S_ISDIR(st.st_mode))
                fail(error, "mkdir", parent);
        }
        *slash = '/';
    }
    free(parent);
}

/* Where a write to this path lands: the last component's links followed, as open(2) would; the target need not exist. */
static char *follow_links(const char *path)
{
    char *at = strdup(path);
    for (int links = 0; at && links <= MAX_LINKS; links++) {
        char target[PATH_MAX];
        ssize_t n = readlink(at, target, sizeof target - 1);
        if (n < 0)
            return at;
        target[n] = 0;
        char *slash = strrchr(at, '/');
        if (*target == '/' || !slash) {
            free(at);
            at = strdup(target);
            continue;
        }
        char *joined = xrealloc(NULL, (size_t)(slash - at) + (size_t)n + 2);
        sprintf(joined, "%.*s/%s", (int)(slash - at), at, target);
        free(at);
        at = joined;
    }
    fail(at ? ELOOP : ENOMEM, "open", path);
}

static void copy_input(int fd, const char *path, uint64_t *written)
{
    uint8_t *chunk = xrealloc(NULL, CHUNK);
    for (size_t n; (n = input(chunk, CHUNK)) > 0; *written += n) {
        for (size_t at = 0; at < n;) {
            ssize_t w = write(fd, chunk + at, n - at);
            if (w < 0 && errno == EINTR)
                continue;
            if (w < 0)
                fail(errno, "write", path);
            at += (size_t)w;
        }
    }
    free(chunk);
}

static void write_in_place(const struct place *p, const char *path, int flags, mode_t mode, bool mode_given, uint64_t *written)
{
    int fd = openat(p->directory, p->name, O_WRONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | flags, mode);
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        fail(errno, "open", path);
    if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode))
        fail(EINVAL, "open", path);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    copy_input(fd, path, written);
    if (mode_given && fchmod(fd, mode))
        fail(errno, "fchmod", path);
    if (close(fd))
        fail(errno, "close", path);
}

static void remove_temporary(int signal)
{
    (void)signal;
    discard_temporary();
    _exit(0);
}

/* Files that only look like files: a rename(2) onto them fails or means nothing. */
static bool has_kernel_files(int directory)
{
    struct statfs fs;
    if (fstatfs(directory, &fs))
        return false;
    switch ((unsigned long)fs.f_type) {
    case 0x9fa0: case 0x62656572: case 0x27e0eb: case 0x63677270: /* proc, sysfs, cgroup, cgroup2 (statfs(2)) */
        return true;
    }
    return false;
}

static int create_temporary(int directory)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    struct timespec t;
    temporary_parent = directory;
    for (int attempt = 0; attempt < 100; attempt++) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        uint64_t seed = (uint64_t)t.tv_nsec * 2654435761u + (uint64_t)getpid() * 97 + (uint64_t)attempt;
        char *name = xrealloc(NULL, 32);
        size_t at = (size_t)sprintf(name, ".sandbox-write-");
        for (int i = 0; i < 10; i++, seed = seed * 6364136223846793005u + 1442695040888963407u)
            name[at++] = letters[(seed >> 33) % (sizeof letters - 1)];
        name[at] = 0;
        temporary = name; /* before it exists: a cancel in between must find it */
        int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0)
            return fd;
        int error = errno;
        temporary = NULL;
        free(name);
        errno = error;
        if (error != EEXIST)
            return -1;
    }
    return -1;
}

/* What the file is to have in the end. */
struct intent {
    mode_t mode;
    bool mode_given;
    uid_t uid;
    gid_t gid;
    bool exclusive;
};

/* By the directory's descriptor, so that what the agent's own rights are lent to is what this user's were refused for. */
static void replace_file(int directory, const char *target, const struct stat *old, const struct intent *want, uint64_t *written)
{
    signal(SIGTERM, remove_temporary);
    int fd = create_temporary(directory);
    if (fd < 0 && old && (errno == EACCES || errno == EPERM)) {
        /* This user may write the file but not its directory. Replacing it as the agent, owner and mode kept, does
         * what writing in place would have done, and atomically. */
        act_as_agent();
        fd = create_temporary(directory);
    }
    if (fd < 0)
        fail(errno, "open", target);
    copy_input(fd, target, written);
    uid_t uid = want->uid != (uid_t)-1 ? want->uid : old ? old->st_uid : (uid_t)-1;
    gid_t gid = want->gid != (gid_t)-1 ? want->gid : old ? old->st_gid : (gid_t)-1;
    if (old && (want->uid == (uid_t)-1 && want->gid == (gid_t)-1)) {
        struct stat made;
        if (fstat(fd, &made))
            fail(errno, "fstat", target);
        if ((made.st_uid != old->st_uid || made.st_gid != old->st_gid) && fchown(fd, uid, gid)) {
            act_as_agent(); /* keeping the owner of a file that one may write needs no right of one's own */
            if (fchown(fd, uid, gid))
                fail(errno, "fchown", target);
        }
    } else if ((uid != (uid_t)-1 || gid != (gid_t)-1) && fchown(fd, uid, gid)) {
        fail(errno, "fchown", target);
    }
    mode_t mode = want->mode_given ? want->mode : old ? old->st_mode & 07777 : 0666 & ~022u;
    if (fchmod(fd, mode))
        fail(errno, "fchmod", target);
    if (close(fd))
        fail(errno, "close", target);
    if (want->exclusive) { /* link(2), unlike rename(2), fails if the name has been taken meanwhile */
        if (linkat(directory, temporary, directory, target, 0))
            fail(errno, "open", target);
        discard_temporary();
    } else if (renameat(directory, temporary, directory, target)) {
        fail(errno, "rename", target);
    }
    temporary = NULL;
}

static void write_file(struct reader *r)
{
    take_user_and_root(r);
    char *path = take_string(r);
    uint32_t flags = take_u32(r);
    int32_t mode = (int32_t)take_u32(r);
    char *owner = take_string(r);
    check_whole(r);
    struct intent want = {.mode = mode < 0 ? 0666 & ~022u : (mode_t)mode & 07777, .mode_given = mode >= 0,
                          .exclusive = flags & WRITE_EXCLUSIVE};
    if (!find_owner(owner, &want.uid, &want.gid))
        fail(EINVAL, "owner", owner);
    size_t length = strlen(path);
    bool names_directory = !length || path[length - 1] == '/';
    struct place p = split(path, (want.exclusive ? 0 : PATH_FOLLOW) | (flags & WRITE_PARENTS ? PATH_PARENTS : 0), "open");
    if (names_directory)
        fail(EISDIR, "open", path);

    struct stat st;
    bool exists = fstatat(p.directory, p.name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (!exists && errno != ENOENT)
        fail(errno, "open", path);
    if (exists && want.exclusive)
        fail(EEXIST, "open", path);
    if (exists && S_ISDIR(st.st_mode))
        fail(EISDIR, "open", path);
    if (exists && faccessat(p.directory, p.name, W_OK, AT_EACCESS))
        fail(errno, "open", path);
    uint64_t written = 0;
    if (exists && (flags & WRITE_APPEND || !S_ISREG(st.st_mode) || has_kernel_files(p.directory)))
        write_in_place(&p, path, flags & WRITE_APPEND ? O_APPEND : O_TRUNC, want.mode, want.mode_given, &written);
    else
        replace_file(p.directory, p.name, exists ? &st : NULL, &want, &written);
    succeed_with_count(written);
}

/* --- STAT, LIST -------------------------------------------------------------------------------------------------- */

static char type_letter(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR: return 'd';
    case S_IFLNK: return 'l';
    case S_IFIFO: return 'p';
    case S_IFSOCK: return 's';
    case S_IFCHR: return 'c';
    case S_IFBLK: return 'b';
    default: return 'f';
    }
}

static void put_entry(struct writer *w, const struct facts *f, const char *path, const char *target)
{
    put_u8(w, (uint8_t)type_letter(f->mode));
    put_u32(w, f->mode & 07777);
    put_u32(w, f->uid);
    put_u32(w, f->gid);
    put_u32(w, f->links);
    put_u64(w, f->size);
    put_u64(w, f->inode);
    put_u64(w, (uint64_t)f->mtime);
    put_string(w, user_name(f->uid));
    put_string(w, group_name(f->gid));
    put_string(w, path);
    put_string(w, target);
}

static const char *link_target(int directory, const char *name, const struct facts *f)
{
    static char target[PATH_MAX];
    if (!S_ISLNK(f->mode))
        return "";
    ssize_t n = readlinkat(directory, name, target, sizeof target - 1);
    target[n < 0 ? 0 : n] = 0;
    return target;
}

static void stat_file(struct reader *r)
{
    take_user_and_root(r);
    char *path = take_string(r);
    bool follow = take_u8(r);
    check_whole(r);
    struct facts f;
    char itself[] = "";
    struct place p = follow ? (struct place){open_file(path, O_PATH, "stat"), itself} : find(path, 0, "stat");
    if (facts_at(p.directory, p.name, &f))
        fail(errno, "stat", path);
    struct writer w = {0};
    put_entry(&w, &f, "", link_target(p.directory, p.name, &f));
    succeed(&w);
}

static void list_files(struct reader *r)
{
    take_user_and_root(r);
    char *path = take_string(r);
    bool recursive = take_u8(r);
    check_whole(r);
    struct walk w;
    if (walk_begin(&w, open_file(path, O_RDONLY | O_DIRECTORY, "open")))
        fail(errno, "open", path);
    struct writer out = {0};
    uint64_t entries = 0;
    int more;
    while ((more = walk_next(&w)) > 0) {
        if (w.leaving)
            continue;
        if (!recursive)
            walk_skip(&w);
        size_t start = out.used;
        put_u32(&out, 0);
        put_entry(&out, &w.facts, w.path, link_target(w.directory, w.name, &w.facts));
        uint32_t size = (uint32_t)(out.used - start - 4);
        for (int i = 0; i < 4; i++)
            out.bytes[start + (size_t)i] = (uint8_t)(size >> (8 * i));
        entries++;
        if (out.used >= CHUNK) {
            output(out.bytes, out.used);
            out.used = 0;
        }
    }
    if (more < 0)
        fail(errno, "readdir", path);
    output(out.bytes, out.used);
    succeed_with_count(entries);
}

/* --- the small ones ---------------------------------------------------------------------------------------------- */

static void make_directory(struct reader *r)
{
    take_user_and_root(r);
    char *path = take_string(r);
    mode_t mode = take_u32(r) & 07777;
    bool parents = take_u8(r), exist_ok = take_u8(r);
    check_whole(r);
    if (parents && root.fd < 0)
        make_parents(path, 0777 & ~022u);
    struct place p = find(path, parents ? PATH_PARENTS : 0, "mkdir");
    if (mkdirat(p.directory, p.name, mode & ~022u)) {
        int error = errno;
        if (error != EEXIST || !exist_ok)
            fail(error, "mkdir", path);
        if (open_path(&root, path, O_PATH | O_DIRECTORY | O_CLOEXEC) < 0) {
            if (errno != EXDEV)
                errno = error;
            fail_path("mkdir", path);
        }
    } else if ((mode & 07000) && fchmodat(p.directory, p.name, mode & ~022u, no_further_link())) {
        fail(errno, "chmod", path); /* mkdir(2) leaves the special bits out */
    }
    succeed(NULL);
}

/* Whether one path is the other, or above it, whatever links lead there. */
static bool holds(const char *path, const char *protected)
{
    char above[PATH_MAX], below[PATH_MAX], *parent = strdup(path);
    if (!*protected || !parent || root.fd >= 0) /* what is beneath the root is not above it */
        return false;
    /* The last component is not followed: removing a link to the workspace removes only the link. */
    size_t length = strlen(parent);
    while (length > 1 && parent[length - 1] == '/')
        parent[--length] = 0;
    struct stat st;
    if (lstat(parent, &st) || !S_ISDIR(st.st_mode) || !realpath(parent, above) || !realpath(protected, below))
        return false;
    size_t n = strlen(above);
    return !strcmp(above, "/") || (!strncmp(above, below, n) && (below[n] == 0 || below[n] == '/'));
}

static void remove_file(struct reader *r)
{
    take_user_and_root(r);
    char *path = take_string(r);
    bool recursive = take_u8(r);
    char *protected = take_string(r);
    check_whole(r);
    if (holds(path, protected))
        fail(EBUSY, "remove", path);
    struct stat st;
    struct place p = split(path, 0, "remove");
    if (fstatat(p.directory, p.name, &st, AT_SYMLINK_NOFOLLOW))
        fail(errno, "remove", path);
    if (recursive) {
        if (remove_tree(p.directory, p.name) < 0)
            fail(errno, "remove", path);
    } else if (unlinkat(p.directory, p.name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0)) {
        fail(errno, "remove", path);
    }
    succeed(NULL);
}

static void rename_file(struct reader *r)
{
    take_user_and_root(r);
    char *from = take_string(r), *to = take_string(r), *protected = take_string(r);
    check_whole(r);
    if (holds(from, protected) || holds(to, protected))
        fail(EBUSY, "rename", holds(from, protected) ? from : to);
    struct place a = find(from, 0, "rename"), b = find(to, 0, "rename");
    if (renameat(a.directory, a.name, b.directory, b.name))
        fail(errno, "rename", from);
    succeed(NULL);
}

static void change_mode(struct reader *r)
{
    take_user_and_root(r);
    char *path = take_string(r);
    mode_t mode = take_u32(r);
    check_whole(r);
    if (mode > 07777)
        fail(EINVAL, "chmod", path);
    struct place p = find(path, PATH_FOLLOW, "chmod");
    if (fchmodat(p.directory, p.name, mode, no_further_link()))
        fail(errno, "chmod", path);
    succeed(NULL);
}

static void change_owner(struct reader *r)
{
    take_user_and_root(r);
    char *path = take_string(r), *owner = take_string(r);
    bool follow = take_u8(r);
    check_whole(r);
    uid_t uid;
    gid_t gid;
    if (!find_owner(owner, &uid, &gid))
        fail(EINVAL, "owner", owner);
    struct place p = find(path, follow ? PATH_FOLLOW : 0, "chown");
    if (fchownat(p.directory, p.name, uid, gid, follow ? no_further_link() : AT_SYMLINK_NOFOLLOW))
        fail(errno, "chown", path);
    succeed(NULL);
}

static void make_link(struct reader *r, bool symbolic)
{
    take_user_and_root(r);
    char *path = take_string(r), *target = take_string(r);
    check_whole(r);
    const char *operation = symbolic ? "symlink" : "link";
    struct place p = find(path, 0, operation), existing = {AT_FDCWD, target};
    if (!symbolic)
        existing = find(target, 0, operation);
    if (symbolic ? symlinkat(target, p.directory, p.name) : linkat(existing.directory, existing.name, p.directory, p.name, 0))
        fail(errno, operation, path);
    succeed(NULL);
}

/* --- COPY -------------------------------------------------------------------------------------------------------- */

static void copy_attributes(int directory, const char *name, const struct facts *f)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                {.tv_sec = f->mtime / 1000000000 - (f->mtime % 1000000000 < 0),
                                 .tv_nsec = (f->mtime % 1000000000 + 1000000000) % 1000000000}};
    /* As cp -p: an owner that one may not give away stays one's own, and then without setuid. */
    bool owned = fchownat(directory, name, f->uid, f->gid, AT_SYMLINK_NOFOLLOW) == 0;
    if (!S_ISLNK(f->mode) && fchmodat(directory, name, f->mode & (owned ? 07777 : 0777), AT_SYMLINK_NOFOLLOW))
        fail(errno, "chmod", name);
    utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW);
}

static void copy_content(int from, int to, const char *subject)
{
    uint8_t *chunk = xrealloc(NULL, CHUNK);
    for (ssize_t n; (n = read(from, chunk, CHUNK)) != 0;) {
        if (n < 0)
            fail(errno, "read", subject);
        for (ssize_t at = 0, w; at < n; at += w)
            if ((w = write(to, chunk + at, (size_t)(n - at))) < 0)
                fail(errno, "write", subject);
    }
    free(chunk);
}

/* One entry that is not a directory; what is there already is replaced. */
static void copy_entry(int from_dir, const char *from, const struct facts *f, int to_dir, const char *to, const char *subject)
{
    if (unlinkat(to_dir, to, 0) && errno != ENOENT)
        fail(errno == EISDIR || errno == EPERM ? EISDIR : errno, "copy", subject);
    if (S_ISLNK(f->mode)) {
        if (symlinkat(link_target(from_dir, from, f), to_dir, to))
            fail(errno, "symlink", subject);
    } else if (S_ISREG(f->mode)) {
        int in = openat(from_dir, from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (in < 0)
            fail(errno, "open", subject);
        int out = openat(to_dir, to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (out < 0)
            fail(errno, "open", subject);
        copy_content(in, out, subject);
        close(in);
        if (close(out))
            fail(errno, "close", subject);
    } else if (S_ISFIFO(f->mode)) {
        if (mkfifoat(to_dir, to, 0600))
            fail(errno, "mkfifo", subject);
    } else {
        fail(EINVAL, "copy", subject);
    }
    copy_attributes(to_dir, to, f);
}

static void copy_below(int from, int to, const char *subject)
{
    struct walk w;
    struct facts *pending = NULL; /* of the directories that are open, applied when they are left */
    size_t depth = 0;
    int more;
    if (walk_begin(&w, from))
        fail(errno, "open", subject);
    while ((more = walk_next(&w)) > 0) {
        if (w.leaving) {
            int up = openat(to, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (up < 0)
                fail(errno, "open", w.path);
            close(to);
            to = up;
            copy_attributes(to, w.name, &pending[--depth]);
        } else if (S_ISDIR(w.facts.mode)) {
            if (mkdirat(to, w.name, 0700) && errno != EEXIST)
                fail(errno, "mkdir", w.path);
            if (w.facts.mount)
                continue;
            int down = openat(to, w.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (down < 0)
                fail(errno, "open", w.path);
            close(to);
            to = down;
            pending = xrealloc(pending, (depth + 1) * sizeof *pending);
            pending[depth++] = w.facts;
        } else if (!S_ISSOCK(w.facts.mode)) {
            copy_entry(w.directory, w.name, &w.facts, to, w.name, w.path);
        }
    }
    if (more < 0)
        fail(errno, "readdir", subject);
}

static void copy_file(struct reader *r)
{
    take_user_and_root(r);
    char *from = take_string(r), *to = take_string(r);
    bool recursive = take_u8(r);
    check_whole(r);
    struct facts f, there;
    struct place a = split(from, 0, "copy"), b = split(to, 0, "copy");
    if (facts_at(a.directory, a.name, &f))
        fail(errno, "copy", from);
    if (!S_ISDIR(f.mode)) {
        copy_entry(a.directory, a.name, &f, b.directory, b.name, to);
        succeed(NULL);
    }
    if (!recursive)
        fail(EISDIR, "copy", from);
    int source = openat(a.directory, a.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (source < 0)
        fail(errno, "copy", from);
    if (mkdirat(b.directory, b.name, 0700) && errno != EEXIST)
        fail(errno, "mkdir", to);
    int target = openat(b.directory, b.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (target < 0 || facts_at(target, "", &there))
        fail(errno, "copy", to);
    /* A copy into itself would never end. */
    for (int up = fcntl(target, F_DUPFD_CLOEXEC, 3); up >= 0;) {
        struct facts here;
        if (facts_at(up, "", &here) || (here.inode == f.inode && here.device == f.device))
            fail(EINVAL, "copy", to);
        int next = openat(up, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct facts above;
        close(up);
        up = -1;
        if (next >= 0 && facts_at(next, "", &above) == 0 && (above.inode != here.inode || above.device != here.device))
            up = next;
        else if (next >= 0)
            close(next); /* the root is its own parent */
    }
    copy_below(source, target, from);
    copy_attributes(b.directory, b.name, &f);
    succeed(NULL);
}

_Noreturn void work(enum kind kind, struct reader *body)
{
    prctl(PR_SET_NAME, "worker");
    die_with_agent();
    umask(0); /* modes are given exactly; where 022 is meant, it is said */
    switch (kind) {
    case KIND_READ: read_file(body); break;
    case KIND_WRITE: write_file(body); break;
    case KIND_STAT: stat_file(body); break;
    case KIND_LIST: list_files(body); break;
    case KIND_MKDIR: make_directory(body); break;
    case KIND_REMOVE: remove_file(body); break;
    case KIND_RENAME: rename_file(body); break;
    case KIND_COPY: copy_file(body); break;
    case KIND_CHMOD: change_mode(body); break;
    case KIND_CHOWN: change_owner(body); break;
    case KIND_SYMLINK: make_link(body, true); break;
    case KIND_LINK: make_link(body, false); break;
    case KIND_PERSIST: persist(body); break;
    case KIND_HYDRATE: hydrate(body); break;
    case KIND_RESTORE: restore(body); break;
    case KIND_CHANGES: changes(body); break;
    case KIND_WATCH: watch(body); break;
    case KIND_CHANGED: changed(body); break;
    default: break;
    }
    fail(ENOSYS, "open", "kind");
}
