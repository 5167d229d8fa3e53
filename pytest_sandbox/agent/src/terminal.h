/* Pseudo-terminals: opened by the agent, made a command's controlling terminal in its own process (pty(7)). */
#ifndef TERMINAL_H
#define TERMINAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* More than the kernel holds of what was written to a terminal and not yet read: 4 KiB of its line discipline, 8 KiB before. */
#define TERMINAL_HOLDS (64u * 1024)

/* Open a pair: ends[0] is the agent's, non-blocking, ends[1] the programs'. False with errno, and nothing open. */
bool open_terminal(int ends[2], uint16_t rows, uint16_t columns);
/* Give it another size; its foreground processes get SIGWINCH if that is a change. */
void resize_terminal(int fd, uint16_t rows, uint16_t columns);
/* In the command's process, which leads a new session: make descriptor 0 its controlling terminal, owned by the user.
 * 0, or -1 with errno. */
int control_terminal(uid_t owner);

#endif
