/* The agent: PID 1 of a sandbox, or a plain process in tests. It serves one host on its standard input and output.
 *
 * As a command in its own sandbox, `agent connect PORT`, it is one connection to a program there; as `agent connect-udp
 * PORT`, whoever sends datagrams to one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "channel.h"
#include "datagrams.h"
#include "join.h"
#include "relay.h"

int main(int argc, char **argv)
{
    if (argc == 1)
        return serve(false);
    if (argc == 2 && !strcmp(argv[1], "stay"))
        return serve(true);
    if (argc == 3 && !strcmp(argv[1], "join") && atoi(argv[2]) > 0)
        return join(atoi(argv[2]));
    if (argc == 3 && !strcmp(argv[1], "connect"))
        return relay(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "connect-udp"))
        return relay_datagrams(argv[2]);
    fputs("usage: agent                 speak docs/protocol.md on standard input and output\n"
          "       agent stay            the same, and wait for another host when that has gone\n"
          "       agent join PID        be another host's end of an agent that stays\n"
          "       agent connect PORT    join standard input and output to a TCP port of the loopback interface\n"
          "       agent connect-udp PORT    the same to a UDP port; each datagram has its length before it\n", stderr);
    return 64; /* EX_USAGE */
}
