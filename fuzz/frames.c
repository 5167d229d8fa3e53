/* Fuzz the agent's loop: any bytes from the host, any behaviour of the children, and no child is ever started.
 *
 * An input is a script: u8 actor, u16 length, bytes. Actor 0 is the host, whose bytes go the way of the standard input; the
 * others are children, which write to their link, to their outputs, read their input, or end. channel.c is taken in whole, with
 * the calls that reach outside replaced; that needs nothing in channel.c itself.
 *
 * Beside the sanitizers' own, these promises are checked: every frame that the agent sends is within its bound and belongs to a
 * channel that is open, no DATA beyond the host's window, and when all children have ended every channel closes. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

struct pipes;
static pid_t fork_of(const struct pipes *p);
static _Noreturn void give_up_of(int status);
static ssize_t write_of(int fd, const void *bytes, size_t length);

#define fork() fork_of(&p) /* both callers have their pipes in `p` */
#define exit(status) give_up_of(status)
#define write(fd, bytes, length) write_of(fd, bytes, length)
#define kill(pid, signal) ((void)(pid), (void)(signal), errno = ESRCH, -1)
#define dprintf(fd, form, why) ((void)(why))
#include "channel.c"
#undef fork
#undef exit
#undef write
#undef kill

#define MAX_CHILDREN 8
#define MAX_ID 4096 /* channels that are watched; the others are served, but not checked */

static struct child { int in, out, err, link; } childs[MAX_CHILDREN];
static size_t child_count;
static jmp_buf gave_up;
static struct { unsigned open; uint64_t granted[2], sent[2]; } seen[MAX_ID]; /* open: lives that have not been CLOSED */

void supervise(const struct command *command, int link) { (void)command, (void)link; abort(); }
bool take_command(struct reader *r, bool terminal, struct command *command) { (void)r, (void)terminal, (void)command; abort(); }
void report_failure(int link, int error, const char *operation, const char *subject)
{
    (void)link, (void)error, (void)operation, (void)subject;
    abort();
}
void work(enum kind kind, struct reader *body) { (void)kind, (void)body; abort(); }
void children(pid_t of, struct pids *found) { (void)of, (void)found; } /* not the sanitizers' own */
size_t kill_all_but(pid_t one, pid_t other) { (void)one, (void)other; return 0; }
bool take_over(pid_t joining) { (void)joining; return false; }
void note_standing(void) {}
bool regain_standing(void) { return true; }
void descendants(pid_t of, struct pids *found) { (void)of, (void)found; }
bool is_ending(pid_t pid) { (void)pid; return true; }
enum outside look_outside(int events, bool own_ipc) { (void)events, (void)own_ipc; return OUTSIDE_UNKNOWN; }

static pid_t fork_of(const struct pipes *p)
{
    if (child_count == MAX_CHILDREN) {
        errno = EAGAIN;
        return -1;
    }
    struct child *c = &childs[child_count++];
    int theirs[] = {p->in[0], p->out[1], p->err[1], p->link[1]}, *copies[] = {&c->in, &c->out, &c->err, &c->link};
    for (int i = 0; i < 4; i++) {
        *copies[i] = theirs[i] < 0 ? -1 : fcntl(theirs[i], F_DUPFD_CLOEXEC, 3);
        if (*copies[i] >= 0)
            fcntl(*copies[i], F_SETFL, fcntl(*copies[i], F_GETFL) | O_NONBLOCK);
    }
    return 1000000 + (pid_t)child_count; /* of nobody: kill() is replaced too */
}

static _Noreturn void give_up_of(int status)
{
    (void)status;
    longjmp(gave_up, 1);
}

/* The outbox is read from memory; what is written for the host goes nowhere. */
static ssize_t write_of(int fd, const void *bytes, size_t length)
{
    return fd == STDOUT_FILENO ? (ssize_t)length : write(fd, bytes, length);
}

static void need(bool holds, const char *promise)
{
    if (holds)
        return;
    fprintf(stderr, "broken promise: %s\n", promise);
    abort();
}

static void check_frame(enum frame_type type, uint32_t id, const uint8_t *payload, size_t length)
{
    need(type >= FRAME_HELLO && type <= FRAME_CLOSED, "the agent sends no unknown frame");
    need(length <= MAX_PAYLOAD, "a frame of the agent is within its bound");
    if (type == FRAME_HELLO || id >= MAX_ID)
        return;
    need(seen[id].open, "no frame for a channel that is not open");
    if (type == FRAME_DATA) {
        need(length > 1 && length - 1 <= MAX_DATA && payload[0] <= 1, "DATA has bytes");
        seen[id].sent[payload[0]] += length - 1;
        need(seen[id].sent[payload[0]] <= seen[id].granted[payload[0]], "DATA is within its window");
    }
    if (type == FRAME_CLOSED)
        seen[id].open--;
}

/* Take all that the agent would have sent. */
static void check_outbox(void)
{
    size_t at = agent.outbox_at;
    while (at < agent.outbox.used) {
        need(agent.outbox.used - at >= FRAME_HEADER, "a whole header");
        uint32_t length = little_endian(agent.outbox.bytes + at);
        need(length >= 5 && length <= agent.outbox.used - at - 4, "a whole frame");
        check_frame(agent.outbox.bytes[at + 4], little_endian(agent.outbox.bytes + at + 5),
                    agent.outbox.bytes + at + FRAME_HEADER, length - 5);
        at += 4 + (size_t)length;
    }
    agent.outbox.used = agent.outbox_at = 0;
}

/* What the host itself would know: which channels it opened, and the windows that it gave. */
static void note_host_frame(enum frame_type type, uint32_t id, const uint8_t *payload, size_t length)
{
    struct reader r = {payload, length, false};
    if (id >= MAX_ID)
        return;
    if (type == FRAME_OPEN && length >= 5) {
        take_u8(&r);
        seen[id].open++;
        seen[id].sent[0] = seen[id].sent[1] = 0;
        seen[id].granted[0] = seen[id].granted[1] = take_u32(&r);
    }
    if (type == FRAME_WINDOW && length == 5 && payload[0] <= 1) {
        uint8_t stream = take_u8(&r);
        seen[id].granted[stream] += take_u32(&r);
    }
}

static void note_host_frames(void)
{
    const uint8_t *at = agent.inbox.bytes;
    for (size_t left = agent.inbox.used; left >= FRAME_HEADER;) {
        uint32_t length = little_endian(at);
        if (length < 5 || left - 4 < length)
            return;
        note_host_frame(at[4], little_endian(at + 5), at + FRAME_HEADER, length - 5);
        at += 4 + (size_t)length;
        left -= 4 + (size_t)length;
    }
}

/* read_host() without the read(2). */
static void host_sends(const uint8_t *bytes, size_t length)
{
    reserve(&agent.inbox, 256);
    put_bytes(&agent.inbox, bytes, length);
    note_host_frames();
    size_t taken = take_frames();
    memmove(agent.inbox.bytes, agent.inbox.bytes + taken, agent.inbox.used - taken);
    agent.inbox.used -= taken;
}

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void child_does(struct child *c, uint8_t what, const uint8_t *bytes, size_t length)
{
    static uint8_t read_away[65536];
    switch (what % 8) {
    case 0: case 1:
        if (length && c->link >= 0)
            (void)!send(c->link, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 2: (void)!write(c->out, bytes, length); break;
    case 3: (void)!write(c->err, bytes, length); break;
    case 4: (void)!read(c->in, read_away, sizeof read_away); break;
    case 5: close_end(&c->in); break;
    case 6: close_end(&c->out); close_end(&c->err); break;
    case 7: close_end(&c->in); close_end(&c->out); close_end(&c->err); close_end(&c->link); break;
    }
}

static void serve_events(int most)
{
    struct epoll_event event;
    while (most-- > 0 && epoll_wait(agent.epoll, &event, 1, 0) == 1) {
        dispatch(event.data.ptr, event.events);
        check_outbox();
    }
}

static void play(const uint8_t *at, size_t left)
{
    while (left >= 3) {
        uint8_t actor = at[0];
        size_t length = at[1] | (size_t)at[2] << 8;
        at += 3;
        left -= 3;
        length = length < left ? length : left;
        if (actor == 0)
            host_sends(at, length);
        else if (child_count)
            child_does(&childs[(actor >> 3) % child_count], actor, at, length);
        at += length;
        left -= length;
        check_outbox();
        serve_events(64);
        if (agent.sweep)
            finish_sweep();
        check_outbox();
    }
}

/* A patient host reads on and discards; whatever the children did, all channels must close when they are gone. */
static void end_all(void)
{
    for (size_t i = 0; i < child_count; i++)
        child_does(&childs[i], 7, NULL, 0);
    for (struct channel *c = agent.channels; c; c = c->next) {
        uint8_t request[FRAME_HEADER + 1] = {6, 0, 0, 0, FRAME_REQUEST};
        for (int i = 0; i < 4; i++)
            request[5 + i] = (uint8_t)(c->id >> (8 * i));
        request[FRAME_HEADER] = REQUEST_DISCARD;
        struct reader r = {request + FRAME_HEADER, 1, false};
        take_request(c, &r);
    }
    serve_events(100000);
    agent.sweep_started = 0; /* its patience is over */
    if (agent.sweep)
        finish_sweep();
    check_outbox();
    need(!agent.channels, "every channel closes when its child has ended");
}

static void forget_everything(void)
{
    for (size_t i = 0; i < child_count; i++)
        child_does(&childs[i], 7, NULL, 0);
    child_count = 0;
    while (agent.channels) {
        struct channel *c = agent.channels;
        drop_source(&c->outputs[0].source);
        drop_source(&c->outputs[1].source);
        forget_channel(c);
    }
    for (int i = 0; i < MAX_INDEXES; i++)
        if (agent.indexes[i].id)
            close(agent.indexes[i].fd);
    close(agent.epoll);
    free(agent.inbox.bytes);
    free(agent.outbox.bytes);
    memset(&agent, 0, sizeof agent);
    memset(seen, 0, sizeof seen);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static bool prepared;
    if (!prepared) {
        signal(SIGPIPE, SIG_IGN);
        prepared = true;
    }
    agent.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!setjmp(gave_up)) {
        play(bytes, size);
        end_all();
    }
    forget_everything();
    return 0;
}
