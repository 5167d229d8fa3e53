#ifndef DATAGRAMS_H
#define DATAGRAMS_H

/* Join standard input and output to a UDP port of the sandbox's own loopback: `agent connect-udp PORT`.
 *
 * On both streams a datagram is its length, a little-endian u16, and its bytes. Returns the exit status: 0 when the input
 * has ended, EX_USAGE for a port that is none, else the errno of what failed: ECONNREFUSED if nobody has the port.
 */
int relay_datagrams(const char *port);

#endif
