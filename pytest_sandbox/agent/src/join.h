/* How an agent that stays, though its host has gone, comes to another host. */
#ifndef JOIN_H
#define JOIN_H

#include <stdbool.h>
#include <sys/types.h>

/* What an agent and a process that joins it tell each other. */
enum { JOIN_ASKED = 10 /* SIGUSR1 */, JOIN_TAKEN = 10 /* the answer to it */, JOIN_REFUSED = 12 /* SIGUSR2 */ };

/* Offer this process's standard input and output to the agent, and last until the agent no longer wants them: whoever started
 * this process, an engine say, ends the streams with it. Returns an exit status. */
int join(pid_t agent);

/* In the agent: take the standard input and output of a process that asked to join; false with errno. */
bool take_over(pid_t joining);

#endif
