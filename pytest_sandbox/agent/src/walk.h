/* Walking trees by directory descriptors, in byte order, never through a link and never by a path that could be swapped. */
#ifndef WALK_H
#define WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What lstat(2) says, and whether something is mounted there. */
struct facts {
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint32_t links;
    uint64_t size, blocks, inode, device, rdevice;
    int64_t mtime, ctime; /* nanoseconds since the epoch */
    bool mount;
};

/* lstat(2) relative to a directory, or of the descriptor itself if the name is empty: 0, or -1 with errno. */
int facts_at(int directory, const char *name, struct facts *facts);

struct level {
    char *names; /* NUL-terminated, one after the other */
    char **order;
    size_t count, next;
    size_t path_length; /* of the directory's own path */
    uint64_t device, inode;
};

struct walk {
    int directory;         /* the one that `name` is in; owned by the walk */
    const char *name;
    char *path;            /* from the root, without a leading slash */
    size_t path_length;
    struct facts facts;
    bool leaving;          /* second visit of a directory, after all that is in it */

    struct level *levels;
    size_t depth, level_room, path_room;
    bool enter;
};

/* Begin below the directory, which the walk takes over: 0, or -1 with errno. */
int walk_begin(struct walk *w, int directory);
/* Go to the next entry: 1, 0 at the end, -1 with errno. A directory is entered next, if it can be, unless walk_skip() says no.
 * Entries that vanish are passed over. */
int walk_next(struct walk *w);
void walk_skip(struct walk *w);
void walk_end(struct walk *w);

/* Remove the entry with all that is in it; gone already is fine. How many entries went, or -1 with errno: EBUSY if a mount,
 * which is left alone, was in the way. */
int64_t remove_tree(int directory, const char *name);

/* Open the top of a tree, a directory; a link in its place is not followed. -1 with errno. */
int open_top(int directory, const char *name);

#endif
