/* Channels: the frames of one stream on one side, the pipes of forked children on the other, flow control between.
 *
 * Every operation runs in a child: a command under its supervisor, a file operation in a worker. A child has pipes for its
 * input and its output and a link (SOCK_SEQPACKET) for reports and requests, so all blocking code lives in children and
 * the agent itself only moves bytes. */
#ifndef CHANNEL_H
#define CHANNEL_H

#include "wire.h"

#include <sys/types.h>

/* Take the host's bytes from descriptor 0 and serve until it ends: the process's exit status. */
int serve(bool stay);

#endif
