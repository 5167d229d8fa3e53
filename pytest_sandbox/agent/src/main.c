/* The agent: PID 1 of a sandbox, or a plain process in tests. It serves one host on its standard input and output. */
#include <stdio.h>

#include "channel.h"

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        fputs("usage: agent    (it speaks docs/protocol.md on standard input and output)\n", stderr);
        return 64; /* EX_USAGE */
    }
    return serve();
}
