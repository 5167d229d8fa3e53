#include "watch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "walk.h"

#define NAMES (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB)
/* A file that was opened for writing and mapped shows when it is closed, for its mapping keeps it open until the process ends. */
#define EVERYTHING (NAMES | IN_MODIFY | IN_CLOSE_WRITE)
#define ROOM_FOR_PATHS (48 * 1024) /* in one RESULT; who gets so many needs no more of them */

/* The paths: for each watch descriptor a u32, then the path with its NUL. */

static void add_watch(struct writer *paths, const char *path, uint32_t mask)
{
    int number = inotify_add_watch(WORKER_EVENTS, path, mask);
    if (number < 0)
        fail(errno, "watch", path);
    put_u32(paths, (uint32_t)number);
    put_bytes(paths, path, strlen(path) + 1);
}

/* Whether an entry is a directory of the same file system; a mount is somebody else's. */
static bool is_own_directory(int directory, const struct dirent *entry)
{
    struct facts facts;
    if (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN)
        return false;
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
        return false;
    return !facts_at(directory, entry->d_name, &facts) && S_ISDIR(facts.mode) && !facts.mount;
}

static void watch_below(struct writer *paths, const char *path)
{
    char below[PATH_MAX];
    DIR *directory = opendir(path);
    if (!directory)
        fail(errno, "watch", path);
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (!is_own_directory(dirfd(directory), entry))
            continue;
        int length = snprintf(below, sizeof below, "%s/%s", !strcmp(path, "/") ? "" : path, entry->d_name);
        if (length < 0 || (size_t)length >= sizeof below)
            fail(ENAMETOOLONG, "watch", path);
        add_watch(paths, below, EVERYTHING | IN_DONT_FOLLOW);
    }
    closedir(directory);
}

static void watch_mount(struct writer *paths, const char *path)
{
    struct stat st;
    if (stat(path, &st)) /* not every engine mounts all of them */
        return;
    /* Devices are written to without being changed; so of what lies in a mounted directory only the names count. */
    add_watch(paths, path, S_ISDIR(st.st_mode) ? NAMES : EVERYTHING);
}

_Noreturn void watch(struct reader *body)
{
    const char *root = take_string(body);
    uint32_t count;
    char **mounts = take_strings(body, &count);
    if (!taken_whole(body))
        fail(EBADMSG, "open", "WATCH body");
    struct writer paths = {0}, result = {0};
    uint32_t directories = 0;
    add_watch(&paths, root, EVERYTHING);
    /* What was added is still to be searched: the list is also the queue. */
    for (size_t at = 0; at < paths.used; directories++) {
        char path[PATH_MAX];
        size_t length = strlen((char *)paths.bytes + at + 4);
        memcpy(path, paths.bytes + at + 4, length + 1); /* the list moves when it grows */
        watch_below(&paths, path);
        at += 4 + length + 1;
    }
    for (uint32_t i = 0; i < count; i++)
        watch_mount(&paths, mounts[i]);
    for (size_t at = 0; at < paths.used;) {
        ssize_t n = write(WORKER_INDEX, paths.bytes + at, paths.used - at);
        if (n < 0)
            fail(errno, "write", "paths");
        at += (size_t)n;
    }
    put_u32(&result, directories);
    succeed(&result);
}

/* --- what has happened ------------------------------------------------------------------------------------------- */

struct found {
    const uint8_t *paths; /* of the watch descriptors */
    size_t size;
    struct writer strings;
    uint32_t count;
    bool complete;
};

static void note(struct found *f, const char *directory, const char *name)
{
    char path[PATH_MAX + NAME_MAX + 2];
    int length = snprintf(path, sizeof path, "%s%s%s", !strcmp(directory, "/") && *name ? "" : directory, *name ? "/" : "", name);
    if (f->strings.used + 4 + (size_t)length > ROOM_FOR_PATHS) {
        f->complete = false;
        return;
    }
    for (size_t at = 0; at < f->strings.used;) { /* few: whoever has more is full soon */
        struct reader r = {f->strings.bytes + at, f->strings.used - at, false};
        struct slice known = take_slice(&r);
        if (known.length == (uint32_t)length && !memcmp(known.at, path, known.length))
            return;
        at += 4 + known.length;
    }
    put_string(&f->strings, path);
    f->count++;
}

static const char *path_of(const struct found *f, uint32_t number)
{
    for (size_t at = 0; at + 4 < f->size;) {
        struct reader r = {f->paths + at, 4, false};
        const char *path = (const char *)f->paths + at + 4;
        if (take_u32(&r) == number)
            return path;
        at += 4 + strlen(path) + 1;
    }
    return NULL;
}

static void note_event(struct found *f, const struct inotify_event *event)
{
    if (event->mask & IN_IGNORED) /* that the directory went was said when it lost its name */
        return;
    const char *directory = event->mask & IN_Q_OVERFLOW ? NULL : path_of(f, (uint32_t)event->wd);
    if (directory)
        note(f, directory, event->len ? event->name : "");
    else
        f->complete = false;
}

/* Objects that live until they are removed, as files do, but in no file system (sysvipc(7)). */
static const char *const ipc_lists[] = {"/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"};
enum { IPC_LISTS = sizeof ipc_lists / sizeof *ipc_lists };

static bool has_objects(const char *list)
{
    char text[1024];
    int fd = open(list, O_RDONLY | O_CLOEXEC);
    if (fd < 0) /* a kernel without them */
        return false;
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    const char *heading = n > 0 ? memchr(text, '\n', (size_t)n) : NULL;
    return heading && heading + 1 < text + n;
}

enum outside look_outside(int events, bool own_ipc)
{
    int waiting = 0;
    if (ioctl(events, FIONREAD, &waiting))
        return OUTSIDE_UNKNOWN;
    bool changed = waiting > 0;
    for (int i = 0; i < IPC_LISTS && own_ipc; i++)
        changed |= has_objects(ipc_lists[i]);
    return changed ? OUTSIDE_CHANGED : OUTSIDE_UNCHANGED;
}

_Noreturn void changed(struct reader *body)
{
    if (!taken_whole(body))
        fail(EBADMSG, "open", "CHANGED body");
    struct stat st;
    if (fstat(WORKER_INDEX, &st))
        fail(errno, "read", "paths");
    struct found found = {.size = (size_t)st.st_size, .complete = true};
    found.paths = mmap(NULL, found.size, PROT_READ, MAP_SHARED, WORKER_INDEX, 0);
    if (found.paths == MAP_FAILED)
        fail(errno, "read", "paths");
    _Alignas(struct inotify_event) char events[64 * 1024];
    for (ssize_t n; (n = read(WORKER_EVENTS, events, sizeof events)) > 0;) /* it does not block */
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *event = (const struct inotify_event *)(events + at);
            note_event(&found, event);
            at += (ssize_t)(sizeof *event + event->len);
        }
    for (int i = 0; i < IPC_LISTS && getppid() == 1; i++)
        if (has_objects(ipc_lists[i]))
            note(&found, ipc_lists[i], "");
    struct writer result = {0};
    put_u8(&result, found.complete);
    put_u32(&result, found.count);
    put_bytes(&result, found.strings.bytes, found.strings.used);
    succeed(&result);
}
