/* One connection to a program in the sandbox, relayed over a command's standard streams. */
#include "relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

struct flow {
    int from, to;
    bool ended;
    size_t start, end; /* of what was read and is not written yet */
    char buffer[64 * 1024];
};

uint16_t port_number(const char *text)
{
    char *rest;
    long number = strtol(text, &rest, 10);

    return *text == '\0' || *rest != '\0' || number < 1 || number > 65535 ? 0 : (uint16_t)number;
}

static int connected(const struct sockaddr *address, socklen_t size, int type)
{
    int sock = socket(address->sa_family, type | SOCK_CLOEXEC, 0);

    if (sock >= 0 && connect(sock, address, size) < 0) {
        int error = errno;
        close(sock);
        errno = error;
        return -1;
    }
    return sock;
}

int connected_to_loopback(int family, int type, uint16_t port)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};

    four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (family == AF_INET)
        return connected((struct sockaddr *)&four, sizeof four, type);
    return connected((struct sockaddr *)&six, sizeof six, type);
}

/* Programs listen on either loopback address, or on both. */
static int connected_to(uint16_t port)
{
    int sock = connected_to_loopback(AF_INET, SOCK_STREAM, port);

    if (sock < 0) {
        int error = errno;
        sock = connected_to_loopback(AF_INET6, SOCK_STREAM, port);
        if (sock < 0)
            errno = error; /* a sandbox without IPv6 says EADDRNOTAVAIL, which explains nothing */
    }
    return sock;
}

/* Pass the end on: each direction has its own, as in a half-closed connection (shutdown(2)). */
static void end(struct flow *flow)
{
    flow->ended = true;
    if (shutdown(flow->to, SHUT_WR) < 0 && errno == ENOTSOCK)
        close(flow->to);
}

/* Move what can be moved without waiting; return an errno when the connection is broken. */
static int move(struct flow *flow)
{
    ssize_t count;

    if (flow->start == flow->end) {
        count = read(flow->from, flow->buffer, sizeof flow->buffer);
        if (count == 0)
            end(flow);
        if (count > 0) {
            flow->start = 0;
            flow->end = (size_t)count;
        }
    } else {
        count = write(flow->to, flow->buffer + flow->start, flow->end - flow->start);
        if (count > 0)
            flow->start += (size_t)count;
    }
    if (count >= 0 || errno == EAGAIN || errno == EINTR)
        return 0;
    if (errno != EPIPE)
        return errno;
    /* Nothing reads this direction any more; the other one may go on. Closed, so that the host hears of it. */
    flow->ended = true;
    if (flow->from == STDIN_FILENO)
        close(flow->from);
    return 0;
}

int relay(const char *port)
{
    static struct flow flows[2]; /* too large for a stack */
    uint16_t number = port_number(port);
    int sock, error;

    if (!number)
        return EX_USAGE;
    signal(SIGPIPE, SIG_IGN);
    sock = connected_to(number);
    if (sock < 0)
        return errno;
    if (write(STDOUT_FILENO, "+", 1) != 1)
        return errno;
    flows[0] = (struct flow){.from = STDIN_FILENO, .to = sock};
    flows[1] = (struct flow){.from = sock, .to = STDOUT_FILENO};
    /* One that waited to write would not read meanwhile, and a program that waits for that never would read either. */
    if (fcntl(sock, F_SETFL, O_NONBLOCK) < 0 || fcntl(STDOUT_FILENO, F_SETFL, O_NONBLOCK) < 0)
        return errno;
    while (!flows[0].ended || !flows[1].ended) {
        struct pollfd polled[2];

        for (int i = 0; i < 2; i++) {
            bool empty = flows[i].start == flows[i].end;
            polled[i].fd = flows[i].ended ? -1 : empty ? flows[i].from : flows[i].to;
            polled[i].events = empty ? POLLIN : POLLOUT;
        }
        if (poll(polled, 2, -1) < 0 && errno != EINTR)
            return errno;
        for (int i = 0; i < 2; i++) {
            if (polled[i].fd >= 0 && polled[i].revents != 0 && (error = move(&flows[i])) != 0)
                return error;
        }
    }
    return 0;
}
