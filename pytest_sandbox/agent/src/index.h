/* The index of a snapshot: what every member looked like when it was known to equal the archive, and where it stands in it.
 * It lives in a memory file that the agent keeps between the workers that make and use it. */
#ifndef INDEX_H
#define INDEX_H

#include "walk.h"
#include "wire.h"

struct index_entry {
    uint64_t offset, length; /* of the member in the archive, headers and padding included */
    uint64_t size, inode;
    int64_t mtime, ctime;
    uint64_t path;           /* where in the names; NUL-terminated */
    uint32_t mode, uid, gid; /* mode with the type */
    uint32_t first;          /* of a hard link: the entry it is a link to, plus 1 */
    uint32_t parent;
    uint32_t racy;           /* its times can't prove that it is unchanged */
};

struct index {
    struct index_entry *entries; /* in the archive's order; the root, with an empty path, is the first */
    size_t count, room;
    struct writer names;
    void *mapped;
    size_t mapped_size;
};

/* Add the entry of a member; its place in the tree is given by the order. */
struct index_entry *index_add(struct index *index, const char *path, uint64_t offset, uint64_t length);
const char *index_path(const struct index *index, const struct index_entry *entry);
/* The entry with this path, or a null pointer. */
struct index_entry *index_find(const struct index *index, const char *path);
void index_note(struct index_entry *entry, const struct facts *facts);
/* Whether what is there now is, by its times and its inode, what was noted. */
bool index_matches(const struct index_entry *entry, const struct facts *facts);

/* Write it to the memory file; false with errno. */
bool index_save(const struct index *index, int fd);
/* Map it from there; changes to the entries go to the file. False if it is no index. */
bool index_load(struct index *index, int fd);

/* Two changes within one tick of the kernel's clock can leave the same ctime, so what was looked at in the tick of its last
 * change could change again unseen. Wait, some milliseconds at most, until a change now would show. False if it never would,
 * because the time is in the future. */
bool wait_until_later_than(int64_t ctime);
/* The same for a whole tree whose latest ctime it is, without waiting where the kernel tells changes within a tick apart once
 * they have been looked at (multigrain timestamps, Linux 6.13). The root's entry is noted anew. */
bool settle(struct index *index, int root, int64_t latest);
/* The kernel's coarse clock, from which files get their times. */
int64_t file_clock(void);

#endif
