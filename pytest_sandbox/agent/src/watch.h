/* Noticing changes where nothing is restored: one inotify(7) instance over the directories outside of the workspace.
 *
 * The agent keeps two descriptors between the workers that begin the watch and read it: the instance, and a memory file that
 * says which watch descriptor is which path. To know that nothing happened costs one ioctl, however large the image is. */
#ifndef WATCH_H
#define WATCH_H

#include "wire.h"

enum outside { OUTSIDE_UNKNOWN = 0, OUTSIDE_UNCHANGED = 1, OUTSIDE_CHANGED = 2 };

/* In a worker: put a watch on every directory, and read what has come since. */
_Noreturn void watch(struct reader *body);
_Noreturn void changed(struct reader *body);

/* In the agent: whether anything waits in this instance, or an object of System V IPC was left, if the sandbox has its own. */
enum outside look_outside(int events, bool own_ipc);

#endif
