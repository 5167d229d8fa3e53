#ifndef RELAY_H
#define RELAY_H

#include <stdint.h>

/* The number of a port, or 0 for what is none. */
uint16_t port_number(const char *text);

/* A socket of that type, connected to 127.0.0.1 (AF_INET) or ::1 (AF_INET6), or -1 with errno. */
int connected_to_loopback(int family, int type, uint16_t port);

/* Join standard input and output to a TCP port of the sandbox's own loopback: `agent connect PORT`.
 *
 * Writes one `+` once it is connected. Returns the exit status: 0 when both directions have ended, EX_USAGE for a port
 * that is none, else the errno, which a status has room for, of what failed.
 */
int relay(const char *port);

#endif
