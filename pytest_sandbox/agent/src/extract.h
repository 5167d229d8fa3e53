/* Members of an archive into a tree: by directory descriptors, through no link, in the archive's order. */
#ifndef EXTRACT_H
#define EXTRACT_H

#include "tar.h"
#include "walk.h"

/* A directory that is being filled. */
struct open_directory {
    size_t path_length;
    uint64_t device, inode;
    bool has_member, foreign; /* foreign: something is mounted here, and it stays as it is */
    bool fresh;               /* made just now, so nothing is in it that the archive lacks */
    bool bequeaths;           /* new files get an ACL of it */
    struct member attributes; /* applied when it is left: filling it changes its times */
    char **names;             /* of its members, in byte order */
    size_t count, room;
};

struct extraction {
    int root, at;             /* at: the directory on top of the stack */
    char *path;               /* of it */
    size_t path_room;
    char *last;               /* the member before: order is checked against it */
    struct open_directory *stack;
    size_t depth, stack_room;
    bool keep_extras, keep_root;
    bool rewrite;             /* write into files that are there: ext4 takes 0.5 ms for one that is made after others were removed */
    uid_t uid;                /* whose new files are */
    gid_t gid;
    uint64_t members, removed;
    const char *operation;    /* what failed, with errno */
};

/* `root` is taken over. */
void extraction_begin(struct extraction *x, int root, bool keep_extras, bool keep_root);
/* Bring one member into the tree: 0, or -1 with errno and x->operation. */
int extract(struct extraction *x, struct tar_input *in, const struct member *m);
/* Go to the directory with this path, leaving (and so finishing) those it is not in; directories that lack are made. */
int extraction_enter(struct extraction *x, const char *path, size_t length);
/* Finish all directories. */
int extraction_end(struct extraction *x);

struct timespec time_of(int64_t nanoseconds);

#endif
