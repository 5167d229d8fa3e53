/* The agent: PID 1 of a sandbox, or a plain process in tests. It serves one host on its standard input and output.
 *
 * As a command in its own sandbox, `agent connect PORT`, it is one connection to a program there. */
#include <stdio.h>
#include <string.h>

#include "channel.h"
#include "relay.h"

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "connect") == 0)
        return relay(argv[2]);
    if (argc > 1) {
        fputs("usage: agent    (it speaks docs/protocol.md on standard input and output)\n"
              "       agent connect PORT    (joins them to a TCP port of the loopback interface)\n",
              stderr);
        return 64; /* EX_USAGE */
    }
    return serve();
}
