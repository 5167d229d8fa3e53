/* What the kernel grants the agent, and so all that it starts: limits, priorities, CPUs. Any process of the same user may take
 * that away from it, without a capability (prlimit(2), sched(7), ioprio_set(2)), and would from the tests that follow, too. */
#ifndef STANDING_H
#define STANDING_H

#include <stdbool.h>

/* Remember how it is. */
void note_standing(void);

/* Bring it back to that; false if it can't be. */
bool regain_standing(void);

#endif
