/* Where the paths of an operation lead: anywhere, or beneath a root only, walked link by link so that nothing can be swapped for
 * a way out meanwhile. */
#ifndef PATH_H
#define PATH_H

#include <stdbool.h>

/* What paths may not lead out of; `fd` is -1 where they lead anywhere. */
struct root {
    int fd;
    const char *path; /* absolute */
};

/* A directory and a name, for openat(2) and its like. */
struct place {
    int directory; /* AT_FDCWD where paths lead anywhere: `name` is all of the path then */
    char *name;    /* beneath a root: one component, `.` if the path ends at the directory itself */
};

enum { PATH_FOLLOW = 1, PATH_PARENTS = 2 }; /* follow the last component's links; make directories that lack on the way (0755) */

/* Open the root; an empty path is none. False with errno. */
bool root_open(struct root *root, const char *path);
/* Go to a path's last component, which need not exist. Beneath a root every link is read and followed here, never by the kernel:
 * an absolute one, like an absolute path, leads to where the root's own path continues. False with errno: EXDEV if the path leads
 * out, by whatever way, ELOOP for too many links. What stands at the place may be another thing by the time it is used, so
 * whoever uses it follows nothing. The place's directory and name are the caller's to close and free, unless it is AT_FDCWD. */
bool locate(const struct root *root, const char *path, int how, struct place *place);
/* open(2) of what is there, following links; beneath a root by locate(). */
int open_path(const struct root *root, const char *path, int flags);

#endif
