/* One command and the supervisor it runs under. */
#ifndef PROCESS_H
#define PROCESS_H

#include "wire.h"

/* What a child of the agent (supervisor or file worker) writes to its link, a SOCK_SEQPACKET pair: one byte, then a body. */
enum report { REPORT_OPENED = 'O', REPORT_RESULT = 'R', REPORT_FAILURE = 'F', REPORT_EXIT = 'X' };

void report(int link, enum report what, const void *body, size_t length);
void report_failure(int link, int error, const char *operation, const char *subject);

struct command {
    uint32_t flags;
    char **arguments, **environment;
    char *cwd, *user;
    uint64_t file_size, open_files; /* UNLIMITED: none of this command's own */
    uint64_t cap[2];
    bool terminal;
    uint16_t rows, columns; /* of the terminal */
};

enum { COMMAND_STDIN = 1, COMMAND_MERGE = 2, COMMAND_REPLACE_ENV = 4, COMMAND_BARE = 8 };

/* Read EXEC's or TERMINAL's body; false if it is malformed. A terminal's may be without arguments: the user's shell. */
bool take_command(struct reader *r, bool terminal, struct command *command);

/* Run in a forked child of the agent: start the command with descriptors 0, 1, 2 as they are (a terminal as its controlling one),
 * report on the link, carry out the REQUESTs that come from it, and end when no process of the tree lives. Never returns. */
_Noreturn void supervise(const struct command *command, int link);

#endif
