#ifndef RELAY_H
#define RELAY_H

/* Join standard input and output to a TCP port of the sandbox's own loopback: `agent connect PORT`.
 *
 * Writes one `+` once it is connected. Returns the exit status: 0 when both directions have ended, EX_USAGE for a port
 * that is none, else the errno, which a status has room for, of what failed.
 */
int relay(const char *port);

#endif
