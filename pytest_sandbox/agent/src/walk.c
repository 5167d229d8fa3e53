#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "wire.h"

#define NANO INT64_C(1000000000)
#define LAST_SECOND (INT64_MAX / NANO - 1) /* in 2262 */
#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x2000 /* since Linux 5.8; older ones never set it */
#endif

/* File systems know times that 64 bits of nanoseconds can't hold; these are as late, or as early, as can be. */
static int64_t nanoseconds(int64_t seconds, int64_t rest)
{
    return seconds > LAST_SECOND ? LAST_SECOND * NANO : seconds < -LAST_SECOND ? -LAST_SECOND * NANO : seconds * NANO + rest;
}

/* Whether something is mounted there, for kernels before 5.8 and seccomp profiles without statx(2). A directory that is mounted
 * elsewhere looks like a mount in its own place too, and then stays as it is. */
static bool in_mount_table(const struct facts *f)
{
    static struct { dev_t device; ino_t inode; } *mounts; /* read once: the process ends with its operation */
    static size_t count;
    static bool read;
    FILE *table = read ? NULL : fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    read = true;
    for (size_t room = 0; table && getline(&line, &room, table) > 0;) {
        char *path = line; /* the fifth field; a space in it is \040 (proc(5)) */
        for (int i = 0; i < 4 && path; i++)
            path = strchr(path, ' ') ? strchr(path, ' ') + 1 : NULL;
        if (!path)
            continue;
        char *to = path;
        for (char *at = path; *at && *at != ' '; at++) {
            bool escaped = at[0] == '\\' && at[1] >= '0' && at[1] <= '3' && at[2] && at[3];
            *to++ = escaped ? (char)((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0')) : *at;
            at += escaped ? 3 : 0;
        }
        *to = 0;
        struct stat st;
        if (fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT))
            continue;
        mounts = xrealloc(mounts, (count + 1) * sizeof *mounts);
        mounts[count].device = st.st_dev;
        mounts[count++].inode = st.st_ino;
    }
    free(line);
    if (table)
        fclose(table);
    for (size_t i = 0; i < count; i++)
        if (mounts[i].device == f->device && mounts[i].inode == f->inode)
            return true;
    return false;
}

static int facts_by_stat(int directory, const char *name, struct facts *f)
{
    struct stat st;
    if (*name ? fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) : fstat(directory, &st))
        return -1;
    *f = (struct facts){.mode = st.st_mode, .uid = st.st_uid, .gid = st.st_gid, .links = (uint32_t)st.st_nlink,
                        .size = (uint64_t)st.st_size, .blocks = (uint64_t)st.st_blocks, .inode = st.st_ino,
                        .device = st.st_dev, .rdevice = st.st_rdev,
                        .mtime = nanoseconds(st.st_mtim.tv_sec, st.st_mtim.tv_nsec),
                        .ctime = nanoseconds(st.st_ctim.tv_sec, st.st_ctim.tv_nsec)};
    f->mount = in_mount_table(f);
    return 0;
}

int facts_at(int directory, const char *name, struct facts *f)
{
    struct statx x;
    if (statx(directory, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &x)) {
        if (errno == ENOSYS || errno == EPERM) /* a kernel, or an engine's seccomp profile, that does not know statx(2) */
            return facts_by_stat(directory, name, f);
        return -1;
    }
    *f = (struct facts){.mode = x.stx_mode, .uid = x.stx_uid, .gid = x.stx_gid, .links = x.stx_nlink,
                        .size = x.stx_size, .blocks = x.stx_blocks, .inode = x.stx_ino,
                        .device = makedev(x.stx_dev_major, x.stx_dev_minor),
                        .rdevice = makedev(x.stx_rdev_major, x.stx_rdev_minor),
                        .mtime = nanoseconds(x.stx_mtime.tv_sec, x.stx_mtime.tv_nsec),
                        .ctime = nanoseconds(x.stx_ctime.tv_sec, x.stx_ctime.tv_nsec),
                        .mount = (x.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0};
    if (!(x.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT))
        f->mount = in_mount_table(f);
    return 0;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b); /* strcmp compares as unsigned char: byte order */
}

static void read_names(DIR *directory, struct level *level)
{
    size_t used = 0, room = 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        size_t length = strlen(entry->d_name) + 1;
        if (used + length > room) {
            room = room ? 2 * room : 1024;
            if (room < used + length)
                room = used + length;
            level->names = xrealloc(level->names, room);
        }
        memcpy(level->names + used, entry->d_name, length);
        used += length;
        level->count++;
    }
    level->order = xrealloc(NULL, (level->count + 1) * sizeof *level->order);
    char *name = level->names;
    for (size_t i = 0; i < level->count; i++, name += strlen(name) + 1)
        level->order[i] = name;
    qsort(level->order, level->count, sizeof *level->order, by_bytes);
}

static int push_level(struct walk *w, int directory, const struct facts *facts)
{
    int copy = fcntl(directory, F_DUPFD_CLOEXEC, 3); /* closedir(3) closes its own */
    DIR *names = copy < 0 ? NULL : fdopendir(copy);
    if (!names) {
        if (copy >= 0)
            close(copy);
        return -1;
    }
    if (w->depth == w->level_room) {
        w->level_room = w->level_room ? 2 * w->level_room : 16;
        w->levels = xrealloc(w->levels, w->level_room * sizeof *w->levels);
    }
    struct level *level = &w->levels[w->depth++];
    *level = (struct level){.path_length = w->path_length, .device = facts->device, .inode = facts->inode};
    read_names(names, level);
    closedir(names);
    return 0;
}

static void pop_level(struct walk *w)
{
    struct level *level = &w->levels[--w->depth];
    free(level->names);
    free(level->order);
}

int walk_begin(struct walk *w, int directory)
{
    *w = (struct walk){.directory = directory};
    w->path = xrealloc(NULL, w->path_room = 256);
    *w->path = 0;
    struct facts facts;
    return facts_at(directory, "", &facts) ? -1 : push_level(w, directory, &facts);
}

/* Go up by `..` and make sure that it is where we came from: a directory moved meanwhile leads elsewhere. One descriptor
 * serves any depth. */
static int ascend(struct walk *w)
{
    int parent = openat(w->directory, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct facts facts;
    const struct level *level = &w->levels[w->depth - 1];
    if (parent < 0 || facts_at(parent, "", &facts))
        return -1;
    close(w->directory);
    w->directory = parent;
    if (facts.inode != level->inode || facts.device != level->device) {
        errno = ESTALE;
        return -1;
    }
    return 0;
}

static void set_path(struct walk *w, size_t parent_length, const char *name)
{
    size_t length = strlen(name), needed = parent_length + length + 2;
    if (needed > w->path_room)
        w->path = xrealloc(w->path, w->path_room = 2 * needed);
    size_t at = parent_length;
    if (at)
        w->path[at++] = '/';
    memcpy(w->path + at, name, length + 1);
    w->path_length = at + length;
}

/* Enter the directory just visited. False if it can't be: vanished, replaced or not readable. */
static bool descend(struct walk *w)
{
    int directory = openat(w->directory, w->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct facts facts;
    if (directory < 0)
        return false;
    if (facts_at(directory, "", &facts) || push_level(w, directory, &facts)) {
        close(directory);
        return false;
    }
    close(w->directory);
    w->directory = directory;
    return true;
}

int walk_next(struct walk *w)
{
    if (w->enter) {
        w->enter = false;
        if (!descend(w)) {
            w->leaving = true; /* every directory is left once, whether it could be entered or not */
            return 1;
        }
    }
    w->leaving = false;
    for (;;) {
        struct level *level = &w->levels[w->depth - 1];
        if (level->next == level->count) {
            if (w->depth == 1)
                return 0;
            pop_level(w);
            if (ascend(w))
                return -1;
            level = &w->levels[w->depth - 1];
            w->name = level->order[level->next - 1];
            set_path(w, level->path_length, w->name);
            w->leaving = true;
            return 1;
        }
        w->name = level->order[level->next++];
        if (facts_at(w->directory, w->name, &w->facts))
            continue; /* gone since its name was read */
        set_path(w, level->path_length, w->name);
        w->enter = S_ISDIR(w->facts.mode) && !w->facts.mount;
        return 1;
    }
}

void walk_skip(struct walk *w) { w->enter = false; }

void walk_end(struct walk *w)
{
    while (w->depth)
        pop_level(w);
    free(w->levels);
    free(w->path);
    if (w->directory >= 0)
        close(w->directory);
}

/* Remember the first reason that something stayed, and go on: what can be removed is. Over a directory that is not empty because a
 * mount is in it, EBUSY says so. */
static void remember(int *error, bool mounts)
{
    if (errno == ENOENT || *error)
        return;
    *error = mounts && errno == ENOTEMPTY ? EBUSY : errno;
}

static int64_t empty_directory(struct walk *w, int *error)
{
    int64_t removed = 0;
    bool mounts = false;
    int more;
    while ((more = walk_next(w)) > 0) {
        if (!w->leaving && w->facts.mount) {
            mounts = true;
            continue;
        }
        if (!w->leaving && S_ISDIR(w->facts.mode))
            continue;
        if (unlinkat(w->directory, w->name, w->leaving ? AT_REMOVEDIR : 0) == 0)
            removed++;
        else
            remember(error, mounts);
    }
    if (more < 0)
        remember(error, mounts);
    if (mounts && !*error)
        *error = EBUSY;
    return removed;
}

int64_t remove_tree(int directory, const char *name)
{
    if (unlinkat(directory, name, 0) == 0)
        return 1;
    if (errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    if (unlinkat(directory, name, AT_REMOVEDIR) == 0)
        return 1;
    int inside = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct facts top;
    struct walk w;
    int error = 0;
    if (inside < 0)
        return -1;
    if (facts_at(inside, "", &top) || top.mount) {
        error = top.mount ? EBUSY : errno;
        close(inside);
        errno = error;
        return -1;
    }
    if (walk_begin(&w, inside))
        return -1;
    int64_t removed = empty_directory(&w, &error);
    walk_end(&w);
    if (unlinkat(directory, name, AT_REMOVEDIR) == 0)
        removed++;
    else
        remember(&error, false);
    errno = error;
    return error ? -1 : removed;
}

int open_top(int directory, const char *name)
{
    return openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}
