/* Datagrams to and from a program in the sandbox, relayed over a command's standard streams. */
#include "datagrams.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "relay.h"

enum { PREFIX = 2, LARGEST = 0xffff };

struct buffer {
    size_t start, end; /* of what is in it */
    uint8_t bytes[PREFIX + LARGEST];
};

struct link {
    uint16_t port;
    int sock;
    bool six;   /* connected to ::1, because nobody had the port on 127.0.0.1 */
    bool heard; /* it has answered: so that is where the program is */
    struct buffer in, out;
    size_t last_size; /* of the datagram sent last, which the other address may want */
    uint8_t last[LARGEST];
};

static int send_last(struct link *l)
{
    if (send(l->sock, l->last, l->last_size, 0) >= 0)
        return 0;
    /* The kernel has no room, or no way for one so large: it is lost, as datagrams are. */
    return errno == EAGAIN || errno == ENOBUFS || errno == EMSGSIZE || errno == EINTR ? 0 : errno;
}

/* Nobody has the port on this address (udp(7)): try the other one, with the last datagram, before giving up. */
static int refused(struct link *l)
{
    if (l->six || l->heard)
        return ECONNREFUSED;
    int other = connected_to_loopback(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, l->port);
    if (other < 0) /* a sandbox without IPv6 */
        return ECONNREFUSED;
    close(l->sock);
    l->sock = other;
    l->six = true;
    return l->last_size ? send_last(l) : 0;
}

/* Send what has come whole; return an errno when there is no use in going on. */
static int send_datagrams(struct link *l)
{
    struct buffer *in = &l->in;
    int error = 0;

    while (!error && in->end - in->start >= PREFIX) {
        const uint8_t *frame = in->bytes + in->start;
        size_t size = frame[0] | (size_t)frame[1] << 8;
        if (in->end - in->start < PREFIX + size)
            break;
        memcpy(l->last, frame + PREFIX, size);
        l->last_size = size;
        in->start += PREFIX + size;
        error = send_last(l);
        if (error == ECONNREFUSED) /* it is of the datagram before; this one was not sent */
            error = refused(l);
    }
    memmove(in->bytes, in->bytes + in->start, in->end - in->start);
    in->end -= in->start;
    in->start = 0;
    return error;
}

static int receive(struct link *l)
{
    ssize_t size = recv(l->sock, l->out.bytes + PREFIX, LARGEST, 0);

    if (size < 0 && errno == ECONNREFUSED)
        return refused(l);
    if (size < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : errno;
    l->heard = true;
    l->out.bytes[0] = size & 0xff;
    l->out.bytes[1] = (uint8_t)(size >> 8);
    l->out.start = 0;
    l->out.end = PREFIX + (size_t)size;
    return 0;
}

int relay_datagrams(const char *port)
{
    static struct link l; /* too large for a stack */
    bool ended = false;
    int error = 0;

    l.port = port_number(port);
    if (!l.port)
        return EX_USAGE;
    signal(SIGPIPE, SIG_IGN);
    l.sock = connected_to_loopback(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, l.port);
    /* One that waited to write would not read meanwhile; what does not fit into the socket's buffer then is lost. */
    if (l.sock < 0 || fcntl(STDOUT_FILENO, F_SETFL, O_NONBLOCK) < 0)
        return errno;
    while (!error && !ended) {
        bool empty = l.out.start == l.out.end;
        struct pollfd polled[] = {
            {.fd = STDIN_FILENO, .events = POLLIN},
            {.fd = empty ? l.sock : STDOUT_FILENO, .events = empty ? POLLIN : POLLOUT},
        };
        ssize_t count;

        if (poll(polled, 2, -1) < 0 && errno != EINTR)
            return errno;
        if (polled[1].revents && empty)
            error = receive(&l);
        if (polled[1].revents && !empty) {
            count = write(STDOUT_FILENO, l.out.bytes + l.out.start, l.out.end - l.out.start);
            if (count < 0 && errno != EAGAIN && errno != EINTR)
                return errno;
            l.out.start += count > 0 ? (size_t)count : 0;
        }
        if (polled[0].revents && !error) {
            count = read(STDIN_FILENO, l.in.bytes + l.in.end, sizeof l.in.bytes - l.in.end);
            if (count < 0 && errno != EAGAIN && errno != EINTR)
                return errno;
            ended = count == 0;
            l.in.end += count > 0 ? (size_t)count : 0;
            error = send_datagrams(&l);
        }
    }
    return error;
}
