/* Process trees: who descends from whom, as /proc tells it, and ending all of them. */
#ifndef TREE_H
#define TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct pids {
    pid_t *at;
    size_t count, room;
};

/* Its living children, zombies left out. */
void children(pid_t of, struct pids *found);
/* All living descendants of a process, zombies left out. /proc is read while processes come and go: one that was forked
 * meanwhile may be missing, so whoever must be sure asks again until none is left. */
void descendants(pid_t of, struct pids *found);
/* Whether a process is about to be a zombie, or is none any more. */
bool is_ending(pid_t pid);
/* Kill every process of this PID namespace but two, zombies left out; how many there were. */
size_t kill_all_but(pid_t one, pid_t other);
/* Signal all descendants of the calling process; how many there were. */
size_t signal_descendants(int signal);

#endif
