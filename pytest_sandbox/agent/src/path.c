/* openat2(2) has RESOLVE_BENEATH and RESOLVE_IN_ROOT for this, but the first refuses absolute links that point inside, the second
 * takes those that point outside for inside, and old kernels and seccomp profiles know neither. chroot(2) would need a privilege
 * and, as RESOLVE_IN_ROOT, finds files where there are none for the sandbox's own programs. */
#include "path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire.h"

#define MAX_LINKS 40 /* as the kernel (path_resolution(7)) */
#define STEP (O_PATH | O_NOFOLLOW | O_CLOEXEC) /* O_PATH: it may be a directory that can't be listed */

/* The directories from the root to where the walk is. `..` takes one off: asked of the kernel it would lead out, if the directory
 * has been moved out meanwhile. */
struct walked {
    int *fds;
    size_t depth, room;
    char *left; /* of the path, still to be walked; links put what they hold before it */
    char *at;   /* in it */
    int links;
};

bool root_open(struct root *root, const char *path)
{
    *root = (struct root){-1, path};
    if (!*path)
        return true;
    root->fd = open(path, STEP | O_DIRECTORY);
    return root->fd >= 0;
}

/* The next component of a path and its length, which is 0 at the end. */
static size_t component(char **path)
{
    *path += strspn(*path, "/");
    return strcspn(*path, "/");
}

/* What an absolute path says beyond the root's own, or a null pointer. Names alone decide: a link that leads to the root from
 * elsewhere is not beneath it. */
static char *beyond(const struct root *root, char *path)
{
    char *own = (char *)(uintptr_t)root->path;
    for (size_t length; (length = component(&own)) > 0; own += length, path += length) {
        while (component(&path) == 1 && *path == '.')
            path++;
        if (component(&path) != length || strncmp(own, path, length))
            return NULL;
    }
    return path;
}

static void ascend_to(struct walked *w, size_t depth)
{
    while (w->depth > depth)
        close(w->fds[--w->depth]);
}

static void push(struct walked *w, int fd)
{
    if (w->depth == w->room)
        w->fds = xrealloc(w->fds, (w->room = w->room ? 2 * w->room : 16) * sizeof *w->fds);
    w->fds[w->depth++] = fd;
}

/* Continue at what a link holds, and then with the rest of the path. */
static bool follow(const struct root *root, struct walked *w, const char *target)
{
    if (++w->links > MAX_LINKS) {
        errno = ELOOP;
        return false;
    }
    char *joined = xrealloc(NULL, strlen(target) + strlen(w->at) + 1);
    strcpy(joined, target);
    strcat(joined, w->at); /* empty, or it begins with a slash */
    free(w->left);
    w->left = w->at = joined;
    if (*target != '/')
        return true;
    ascend_to(w, 1);
    w->at = beyond(root, w->at);
    if (!w->at)
        errno = EXDEV;
    return w->at != NULL;
}

/* What a link holds: that of this name in the directory, or without a name the one that is opened. False if it is none. */
static bool read_link(int fd, const char *name, char target[PATH_MAX])
{
    ssize_t n = readlinkat(fd, name, target, PATH_MAX - 1);
    target[n > 0 ? n : 0] = 0;
    return n >= 0;
}

/* Opened first and asked what it is then: by its name it could be two things to two questions. */
static bool enter(const struct root *root, struct walked *w, const char *name, int how)
{
    int here = w->fds[w->depth - 1], fd = openat(here, name, STEP);
    char target[PATH_MAX];
    struct stat st;
    if (fd < 0 && errno == ENOENT && how & PATH_PARENTS) {
        if (mkdirat(here, name, 0777 & ~022u) && errno != EEXIST)
            return false;
        fd = openat(here, name, STEP);
    }
    if (fd < 0)
        return false;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        push(w, fd);
        return true;
    }
    bool is_link = read_link(fd, "", target);
    close(fd);
    if (is_link)
        return follow(root, w, target);
    errno = ENOTDIR;
    return false;
}

/* One component: 1 to go on, 0 if it is the last and `name` has it, -1 with errno. */
static int step(const struct root *root, struct walked *w, int how, char name[NAME_MAX + 1])
{
    char target[PATH_MAX];
    size_t length = component(&w->at);
    if (length > NAME_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(name, w->at, length);
    name[length] = 0;
    w->at += length;
    if (!length) { /* the path ended with a directory: as `.`, or `..`, or at the root */
        strcpy(name, ".");
        return 0;
    }
    if (!strcmp(name, "."))
        return 1;
    if (!strcmp(name, "..")) {
        if (w->depth == 1) {
            errno = EXDEV;
            return -1;
        }
        ascend_to(w, w->depth - 1);
        return 1;
    }
    if (w->at[strspn(w->at, "/")])
        return enter(root, w, name, how) ? 1 : -1;
    if (!(how & PATH_FOLLOW) || !read_link(w->fds[w->depth - 1], name, target))
        return 0; /* what else is wrong with it, its use will tell */
    return follow(root, w, target) ? 1 : -1;
}

bool locate(const struct root *root, const char *path, int how, struct place *place)
{
    if (root->fd < 0) {
        *place = (struct place){AT_FDCWD, (char *)(uintptr_t)path};
        return true;
    }
    struct walked w = {0};
    char name[NAME_MAX + 1];
    int more = 1;
    push(&w, fcntl(root->fd, F_DUPFD_CLOEXEC, 3));
    w.left = w.at = strcpy(xrealloc(NULL, strlen(path) + 1), path);
    if (*path == '/' && !(w.at = beyond(root, w.at))) {
        errno = EXDEV;
        more = -1;
    }
    while (more > 0)
        more = step(root, &w, how, name);
    int error = errno;
    if (more == 0)
        *place = (struct place){w.fds[--w.depth], strcpy(xrealloc(NULL, strlen(name) + 1), name)};
    ascend_to(&w, 0);
    free(w.fds);
    free(w.left);
    errno = error;
    return more == 0;
}

/* openat(2) of a place at which there was no link; ELOOP if there is one now. A link that O_DIRECTORY refuses would be ENOTDIR, so
 * what is there is opened as anything first. */
static int open_place(const struct place *p, int flags)
{
    struct stat st;
    if (!(flags & (O_PATH | O_DIRECTORY)))
        return openat(p->directory, p->name, flags | O_NOFOLLOW);
    int fd = openat(p->directory, p->name, STEP);
    if (fd < 0)
        return -1;
    int error = fstat(fd, &st) ? errno : S_ISLNK(st.st_mode) ? ELOOP : 0;
    int opened = error ? -1 : flags & O_DIRECTORY ? openat(fd, ".", flags) : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    error = error ? error : errno;
    close(fd);
    errno = error;
    return opened;
}

int open_path(const struct root *root, const char *path, int flags)
{
    struct place p;
    if (root->fd < 0)
        return open(path, flags);
    for (int attempt = 0; attempt < MAX_LINKS && locate(root, path, PATH_FOLLOW, &p); attempt++) {
        int fd = open_place(&p, flags), error = errno;
        close(p.directory);
        free(p.name);
        errno = error;
        if (fd >= 0 || error != ELOOP) /* a link that has been put there since: once more */
            return fd;
    }
    return -1;
}
