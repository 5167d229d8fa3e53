#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "join.h"
#include "process.h"
#include "standing.h"
#include "terminal.h"
#include "tree.h"
#include "watch.h"

#ifndef AGENT_BUILD
#define AGENT_BUILD "unknown"
#endif

#define EX_DATAERR 65
#define EX_OSERR 71
#define EX_TERMINATED (128 + SIGTERM) /* as a shell says it of who did not ask for the signal */
#define OUTBOX_HIGH (512u * 1024) /* bytes: beyond, only the host's reading helps, so nothing else is read */
#define BULK_PIPE (256 * 1024)    /* fewer wake-ups for large transfers; all pipes of a user share 64 MiB (pipe(7)) */
#define SWEEP_PATIENCE 500        /* milliseconds a supervisor has to end its tree before it is ended itself */
#define MAX_INDEXES 256

struct channel;

/* What a descriptor in the epoll set is to its channel. */
enum role { ROLE_STDIN, ROLE_STDOUT, ROLE_SIGNALS, ROLE_STOP, ROLE_INPUT, ROLE_OUTPUT, ROLE_STDERR, ROLE_LINK };

struct source {
    enum role role;
    struct channel *channel;
    int fd;
    uint32_t events; /* as registered; level-triggered */
};

struct output {
    struct source source;
    uint64_t window; /* bytes the host still takes */
    uint64_t cap;    /* bytes still to be sent of what the command writes; the rest is counted and dropped */
    uint64_t total;  /* bytes read */
    uint64_t before_exit; /* of what the pipe held when the command ended, still unread; of a terminal, at most */
};

struct channel {
    struct channel *next;
    uint32_t id;
    enum kind kind;
    pid_t pid; /* supervisor or worker */
    struct source input, link;
    uint8_t *pending; /* input not yet in the pipe */
    size_t pending_at, pending_used;
    uint32_t input_window;   /* bytes the host may still send */
    uint32_t input_consumed; /* bytes in the pipe, for which the host has not had its window back */
    bool input_ended;        /* the host sent EOF */
    bool input_refused;      /* nobody reads it any more */
    struct output outputs[2];
    bool opened, discard, ended; /* ended: the link is closed, nothing but buffered output is left */
    struct writer last;          /* the RESULT, FAILURE or EXIT that goes out once the output before it has */
    enum frame_type last_type;   /* 0: none yet */
    bool last_sent;
    uint32_t index; /* that a PERSIST or HYDRATE is making */
    int index_fd;
};

static struct {
    int epoll, signals, stop, null; /* stop: of PID 1, else -1; null: opened before anybody could put something else in its place */
    struct writer inbox, outbox;
    size_t outbox_at;
    bool greeted;
    bool stay;             /* when the host has gone, wait for another one */
    bool present, leaving; /* of the host: its streams are open; they are to be let go before the next event */
    pid_t joined;          /* lends its streams, if they are not those that the agent began with */
    struct channel *channels;
    struct source standard_input, standard_output, signal_source, stop_source;
    struct channel *sweep; /* the channel of a SWEEP under way */
    uint32_t swept;
    int64_t sweep_started; /* milliseconds, CLOCK_MONOTONIC */
    bool strays;           /* a supervisor was killed: orphans of it may live */
    struct { uint32_t id; int fd; } indexes[MAX_INDEXES];
    struct { int events, paths; bool ready; } watch; /* -1 where there is none */
    struct rlimit files; /* as the agent found them */
} agent;

static _Noreturn void give_up(int status, const char *why)
{
    dprintf(STDERR_FILENO, "agent: %s\n", why);
    exit(status);
}

static int64_t milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- frames to the host ------------------------------------------------------------------------------------------ */

static size_t frame_begin(enum frame_type type, uint32_t channel)
{
    size_t start = agent.outbox.used;
    put_u32(&agent.outbox, 0);
    put_u8(&agent.outbox, (uint8_t)type);
    put_u32(&agent.outbox, channel);
    return start;
}

static uint32_t little_endian(const uint8_t *b)
{
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void frame_end(size_t start)
{
    const uint8_t *header = agent.outbox.bytes + start;
    if (header[4] != FRAME_HELLO && !little_endian(header + 5)) {
        agent.outbox.used = start; /* of a channel whose host has gone */
        return;
    }
    uint32_t length = (uint32_t)(agent.outbox.used - start - 4);
    for (int i = 0; i < 4; i++)
        agent.outbox.bytes[start + (size_t)i] = (uint8_t)(length >> (8 * i));
}

static void send_frame(enum frame_type type, uint32_t channel, const void *payload, size_t length)
{
    size_t start = frame_begin(type, channel);
    put_bytes(&agent.outbox, payload, length);
    frame_end(start);
}

static void send_failure(uint32_t channel, int error, const char *operation, const char *subject)
{
    size_t start = frame_begin(FRAME_FAILURE, channel);
    put_u32(&agent.outbox, (uint32_t)error);
    put_string(&agent.outbox, operation);
    put_string(&agent.outbox, subject);
    frame_end(start);
}

static void send_eof(uint32_t channel, enum stream stream, uint64_t total)
{
    size_t start = frame_begin(FRAME_EOF, channel);
    put_u8(&agent.outbox, (uint8_t)stream);
    put_u64(&agent.outbox, total);
    frame_end(start);
}

static size_t outbox_left(void) { return agent.outbox.used - agent.outbox_at; }

static void host_gone(const char *why)
{
    if (!agent.stay)
        give_up(EX_OSERR, why);
    agent.leaving = true;
    agent.outbox.used = agent.outbox_at = 0;
}

/* Who stops a container sends SIGTERM to its init, from where nobody has a pid in here (pid_namespaces(7)). What sigqueue(3) sends
 * has the pid that its sender likes. */
static void heed_stop(void)
{
    struct signalfd_siginfo signal;
    if (read(agent.stop, &signal, sizeof signal) == sizeof signal && signal.ssi_code == SI_USER && signal.ssi_pid == 0)
        give_up(EX_TERMINATED, "stopped from outside of the sandbox (SIGTERM)"); /* the kernel ends all others with init */
}

/* Write what the pipe takes, and wait for it to take more as long as more than `keep` is left. */
static void flush_outbox(size_t keep)
{
    while (outbox_left()) {
        ssize_t n = write(STDOUT_FILENO, agent.outbox.bytes + agent.outbox_at, outbox_left());
        if (n >= 0) {
            agent.outbox_at += (size_t)n;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN) {
            host_gone("the host no longer reads");
            break;
        }
        if (outbox_left() <= keep)
            break;
        struct pollfd fds[3] = {{.fd = STDOUT_FILENO, .events = POLLOUT}, {.fd = STDIN_FILENO}, {.fd = agent.stop, .events = POLLIN}};
        poll(fds, 3, -1);
        if (fds[2].revents)
            heed_stop();
        if (fds[1].revents) { /* a dead host's output may be held open by its engine, which does not read either */
            host_gone("the host is gone");
            break;
        }
    }
    if (!outbox_left()) {
        agent.outbox.used = agent.outbox_at = 0;
    } else if (agent.outbox_at > OUTBOX_HIGH) {
        memmove(agent.outbox.bytes, agent.outbox.bytes + agent.outbox_at, outbox_left());
        agent.outbox.used -= agent.outbox_at;
        agent.outbox_at = 0;
    }
}

/* --- the epoll set ----------------------------------------------------------------------------------------------- */

static void register_source(struct source *s, int operation)
{
    struct epoll_event e = {.events = s->events, .data.ptr = s};
    if (epoll_ctl(agent.epoll, operation, s->fd, &e))
        give_up(EX_OSERR, "epoll_ctl");
}

/* EPOLLHUP and EPOLLERR come unasked. For an input that is wanted, for an output it would come again and again as long as the
 * host's window is shut; so an output that is not read is not in the set. */
static bool registered(enum role role, uint32_t events)
{
    return events || (role != ROLE_OUTPUT && role != ROLE_STDERR && role != ROLE_STDOUT);
}

static void watch_source(struct source *s, enum role role, struct channel *c, int fd, uint32_t events)
{
    *s = (struct source){role, c, fd, events};
    if (registered(role, events))
        register_source(s, EPOLL_CTL_ADD);
}

static void want(struct source *s, uint32_t events)
{
    if (s->fd < 0 || s->events == events)
        return;
    bool was = registered(s->role, s->events), is = registered(s->role, events);
    s->events = events;
    if (was || is)
        register_source(s, !was ? EPOLL_CTL_ADD : is ? EPOLL_CTL_MOD : EPOLL_CTL_DEL);
}

static void drop_source(struct source *s)
{
    if (s->fd < 0)
        return;
    if (registered(s->role, s->events))
        epoll_ctl(agent.epoll, EPOLL_CTL_DEL, s->fd, NULL); /* closing does not, while a forked child still holds it */
    close(s->fd);
    s->fd = -1;
}

/* --- input: from the host into the child -------------------------------------------------------------------------- */

static void refuse_input(struct channel *c)
{
    if (c->input.fd < 0)
        return;
    drop_source(&c->input);
    free(c->pending);
    c->pending = NULL;
    c->pending_at = c->pending_used = 0;
    c->input_refused = true;
    if (c->opened)
        send_eof(c->id, STREAM_REFUSED, 0);
}

static void give_window_back(struct channel *c)
{
    if (c->input_consumed < INPUT_WINDOW / 2 || c->input_ended)
        return;
    size_t start = frame_begin(FRAME_WINDOW, c->id);
    put_u8(&agent.outbox, STREAM_MAIN);
    put_u32(&agent.outbox, c->input_consumed);
    frame_end(start);
    c->input_window += c->input_consumed;
    c->input_consumed = 0;
}

/* How much of it the pipe took; the input is refused if nobody can read it any more. */
static size_t write_input(struct channel *c, const uint8_t *bytes, size_t length)
{
    size_t written = 0;
    while (written < length) {
        ssize_t n = write(c->input.fd, bytes + written, length - written);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            refuse_input(c);
            return length;
        }
        written += (size_t)n;
    }
    c->input_consumed += (uint32_t)written;
    give_window_back(c);
    return written;
}

/* A pipe also ends when the agent dies. So a worker is told that this end is the host's, and all that there is has come. */
static void end_input(struct channel *c)
{
    if (c->kind != KIND_EXEC && c->kind != KIND_TERMINAL)
        send(c->link.fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    drop_source(&c->input);
}

static void flush_input(struct channel *c)
{
    if (c->pending_at < c->pending_used) {
        c->pending_at += write_input(c, c->pending + c->pending_at, c->pending_used - c->pending_at);
        if (c->input.fd < 0)
            return;
    }
    if (c->pending_at < c->pending_used) {
        want(&c->input, EPOLLOUT);
        return;
    }
    c->pending_at = c->pending_used = 0;
    if (c->input_ended)
        end_input(c);
    else
        want(&c->input, 0); /* EPOLLERR, that the last reader is gone, comes unasked */
}

static void take_data(struct channel *c, const uint8_t *bytes, size_t length)
{
    if (length > c->input_window || c->input_ended)
        give_up(EX_DATAERR, "DATA beyond its window or after EOF");
    c->input_window -= (uint32_t)length;
    if (c->input.fd < 0)
        return;
    size_t written = c->pending_used ? 0 : write_input(c, bytes, length);
    if (c->input.fd < 0 || written == length)
        return;
    if (!c->pending)
        c->pending = xrealloc(NULL, 2 * INPUT_WINDOW);
    if (c->pending_used + length - written > 2 * INPUT_WINDOW) {
        memmove(c->pending, c->pending + c->pending_at, c->pending_used - c->pending_at);
        c->pending_used -= c->pending_at;
        c->pending_at = 0;
    }
    memcpy(c->pending + c->pending_used, bytes + written, length - written);
    c->pending_used += length - written;
    want(&c->input, EPOLLOUT);
}

/* --- output: from the child to the host ---------------------------------------------------------------------------- */

static uint32_t wanted_output(const struct channel *c, const struct output *o)
{
    return !c->opened ? 0 : c->discard || !o->cap || o->window ? EPOLLIN : 0;
}

static void forget_channel(struct channel *c);
static void read_output(struct channel *c, struct output *o);
static size_t kill_strays(void);

/* A terminal can't be asked how much it holds: FIONREAD leaves out what has not reached its line discipline. Only reading
 * until EAGAIN or EIO tells that all is through; epoll would not report that. */
static void drain_terminal(struct channel *c)
{
    struct output *o = &c->outputs[0];
    while (c->kind == KIND_TERMINAL && o->before_exit && o->source.fd >= 0 && wanted_output(c, o))
        read_output(c, o);
}

/* Send what was held back until the output before it was through; then, when the child is gone, the end of the channel. */
static void settle(struct channel *c)
{
    bool through = true, all_ended = true;
    drain_terminal(c);
    for (int i = 0; i < 2; i++) {
        struct output *o = &c->outputs[i];
        if (o->source.fd < 0)
            continue;
        all_ended = false;
        if (o->before_exit)
            through = false;
    }
    bool is_command = c->kind == KIND_EXEC || c->kind == KIND_TERMINAL;
    if (c->last_type && !c->last_sent && (is_command ? through || c->discard : all_ended)) {
        if (c->last_type == FRAME_EXIT && c->last.used >= 21)
            for (int i = 0; i < 2; i++) /* the totals in EXIT's body, after i32 and u8 */
                for (int byte = 0; byte < 8; byte++)
                    c->last.bytes[5 + 8 * i + byte] = (uint8_t)(c->outputs[i].total >> (8 * byte));
        send_frame(c->last_type, c->id, c->last.bytes, c->last.used);
        c->last_sent = true;
    }
    if (c->ended && all_ended && c->last_sent)
        forget_channel(c);
}

static void end_output(struct channel *c, struct output *o)
{
    drop_source(&o->source);
    o->before_exit = 0;
    if (c->opened && !c->discard)
        send_eof(c->id, o == &c->outputs[1] ? STREAM_STDERR : STREAM_MAIN, o->total);
}

static void count_read(struct output *o, size_t n)
{
    o->total += n;
    o->before_exit -= n < o->before_exit ? n : o->before_exit;
}

/* As read(2), straight into the outbox. A terminal gives 4 KiB at a time, and a frame for each would cost more than they do; whatever
 * stops the reading of more is met again by the next call. */
static ssize_t read_some(const struct channel *c, const struct output *o, size_t room)
{
    uint8_t *at = agent.outbox.bytes + agent.outbox.used;
    ssize_t n = read(o->source.fd, at, room);
    for (ssize_t more = n; c->kind == KIND_TERMINAL && more > 0 && (size_t)n < room;) {
        more = read(o->source.fd, at + n, room - (size_t)n);
        n += more > 0 ? more : 0;
    }
    return n;
}

/* Read what there is, at most a frame, from the child's pipe or terminal. */
static void read_output(struct channel *c, struct output *o)
{
    size_t room = MAX_DATA;
    bool drop = c->discard || !o->cap;
    if (!drop) {
        room = room < o->cap ? room : (size_t)o->cap;
        room = room < o->window ? room : (size_t)o->window;
        if (!room)
            return;
    }
    /* After the end nothing is waited for: only what was in the pipe then is still read (a stranger may hold it open). */
    if (c->ended && room > o->before_exit)
        room = (size_t)o->before_exit;
    size_t start = frame_begin(FRAME_DATA, c->id);
    put_u8(&agent.outbox, o == &c->outputs[1] ? STREAM_STDERR : STREAM_MAIN);
    reserve(&agent.outbox, MAX_DATA);
    ssize_t n = room ? read_some(c, o, room) : 0;
    if (n > 0 && !drop) {
        agent.outbox.used += (size_t)n;
        frame_end(start);
        o->window -= (uint64_t)n;
        if (o->cap != UNLIMITED)
            o->cap -= (uint64_t)n;
    } else {
        agent.outbox.used = start;
    }
    if (n < 0 && errno == EINTR)
        return;
    if (n < 0 && errno == EAGAIN) {
        o->before_exit = 0;
        if (c->ended)
            end_output(c, o);
        return;
    }
    if (n > 0)
        count_read(o, (size_t)n);
    if (n <= 0 || (c->ended && !o->before_exit))
        end_output(c, o); /* EIO is how a terminal says that its last user is gone */
    else
        want(&o->source, wanted_output(c, o));
}

/* The command has ended: all it wrote is in the pipes now, and what comes later is its children's. */
static void mark_pipes(struct channel *c)
{
    for (int i = 0; i < 2; i++) {
        struct output *o = &c->outputs[i];
        int held = 0;
        if (o->source.fd >= 0 && c->kind == KIND_TERMINAL)
            o->before_exit = TERMINAL_HOLDS;
        else if (o->source.fd >= 0 && ioctl(o->source.fd, FIONREAD, &held) == 0)
            o->before_exit = (uint64_t)held;
    }
}

/* --- the life of a channel ----------------------------------------------------------------------------------------- */

static struct channel *find_channel(uint32_t id)
{
    for (struct channel *c = agent.channels; c; c = c->next)
        if (c->id == id && id)
            return c;
    return NULL;
}

static int *index_slot(uint32_t id)
{
    for (int i = 0; i < MAX_INDEXES; i++)
        if (agent.indexes[i].id == id)
            return &agent.indexes[i].fd;
    return NULL;
}

static void keep_index(uint32_t id, int fd)
{
    int *slot = index_slot(id);
    if (slot) {
        close(*slot);
        *slot = fd;
        return;
    }
    for (int i = 0; i < MAX_INDEXES; i++) {
        if (agent.indexes[i].id)
            continue;
        agent.indexes[i].id = id;
        agent.indexes[i].fd = fd;
        return;
    }
    close(fd); /* a RESTORE by it will say ENOENT, and the host hydrates */
}

static void end_watch(void)
{
    if (agent.watch.events >= 0)
        close(agent.watch.events);
    if (agent.watch.paths >= 0)
        close(agent.watch.paths);
    agent.watch.events = agent.watch.paths = -1;
    agent.watch.ready = false;
}

/* Make the descriptors of a new watch in place of the last one; false with errno. */
static bool begin_watch(void)
{
    for (struct channel *c = agent.channels; c; c = c->next) {
        if (c->kind == KIND_WATCH) {
            errno = EALREADY;
            return false;
        }
    }
    end_watch();
    agent.watch.events = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    agent.watch.paths = memfd_create("watch", MFD_CLOEXEC);
    if (agent.watch.events >= 0 && agent.watch.paths >= 0)
        return true;
    int error = errno;
    end_watch();
    errno = error;
    return false;
}

static void forget_channel(struct channel *c)
{
    if (c->kind == KIND_WATCH && c->id) {
        agent.watch.ready = c->last_type == FRAME_RESULT;
        if (!agent.watch.ready)
            end_watch();
    }
    if (c->index && c->last_type == FRAME_RESULT)
        keep_index(c->index, c->index_fd);
    else if (c->index_fd >= 0)
        close(c->index_fd);
    send_frame(FRAME_CLOSED, c->id, NULL, 0);
    for (struct channel **at = &agent.channels; *at; at = &(*at)->next) {
        if (*at != c)
            continue;
        *at = c->next;
        break;
    }
    drop_source(&c->input);
    drop_source(&c->link);
    free(c->pending);
    free(c->last.bytes);
    free(c);
}

static void put_opened(uint32_t id, uint32_t window, pid_t pid)
{
    size_t start = frame_begin(FRAME_OPENED, id);
    put_u32(&agent.outbox, window);
    put_u32(&agent.outbox, (uint32_t)pid);
    frame_end(start);
}

static void send_opened(struct channel *c, uint32_t window, pid_t pid)
{
    put_opened(c->id, window, pid);
    c->opened = true;
    if (c->input_refused) /* a command can close its input before its supervisor has said that it runs */
        send_eof(c->id, STREAM_REFUSED, 0);
    for (int i = 0; i < 2; i++)
        want(&c->outputs[i].source, wanted_output(c, &c->outputs[i]));
}

static void read_link(struct channel *c)
{
    uint8_t packet[1 + MAX_PAYLOAD];
    ssize_t n = recv(c->link.fd, packet, sizeof packet, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNRESET))
        return; /* ECONNRESET: it ended with a request unread; once that is said its last words are still there */
    if (n <= 0) { /* the child has ended, and with it all it looked after */
        drop_source(&c->link);
        if (!c->last_type) {
            bool is_command = c->kind == KIND_EXEC || c->kind == KIND_TERMINAL;
            if (is_command) { /* killed from inside the sandbox, and what it leaves goes before that is told */
                kill(c->pid, SIGKILL);
                waitpid(c->pid, NULL, 0);
                agent.strays = kill_strays() > 0;
            }
            struct writer w = {0};
            put_u32(&w, is_command ? ECHILD : EINTR);
            put_string(&w, is_command ? "supervisor" : "worker");
            put_string(&w, "ended before its work");
            c->last = w;
            c->last_type = FRAME_FAILURE;
        }
        c->ended = true;
        mark_pipes(c);
        refuse_input(c);
        for (int i = 0; i < 2; i++)
            if (c->outputs[i].source.fd >= 0 && (!c->outputs[i].before_exit || !c->opened)) /* nobody gave it a window */
                end_output(c, &c->outputs[i]);
        return;
    }
    const uint8_t *body = packet + 1;
    size_t length = (size_t)n - 1;
    switch (packet[0]) {
    case REPORT_OPENED: {
        struct reader r = {body, length, false};
        send_opened(c, INPUT_WINDOW, (pid_t)take_u32(&r));
        return;
    }
    case REPORT_EXIT:
        mark_pipes(c);
        c->last_type = FRAME_EXIT;
        put_bytes(&c->last, body, length);
        return;
    case REPORT_RESULT:
    case REPORT_FAILURE:
        c->last_type = packet[0] == REPORT_RESULT ? FRAME_RESULT : FRAME_FAILURE;
        put_bytes(&c->last, body, length);
        return;
    }
}

/* Close all descriptors from `first` on: what other channels own must not be held open by this child. */
static void close_from(unsigned first)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return;
#endif
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files))
        return;
    for (unsigned fd = first; fd < files.rlim_cur; fd++) /* an old kernel, or a seccomp profile that does not know the call */
        close((int)fd);
}

/* Put descriptors[i] at number i in the child, whatever numbers they had. */
static void arrange(int *descriptors, int count)
{
    for (int i = 0; i < count; i++)
        while (descriptors[i] >= 0 && descriptors[i] < count)
            descriptors[i] = fcntl(descriptors[i], F_DUPFD, count);
    for (int i = 0; i < count; i++) {
        if (descriptors[i] >= 0)
            dup2(descriptors[i], i);
        else
            close(i);
    }
    close_from((unsigned)count);
}

static bool make_pipe(int ends[2], int nonblocking_end, bool bulk)
{
    if (pipe2(ends, O_CLOEXEC))
        return false;
    fcntl(ends[nonblocking_end], F_SETFL, fcntl(ends[nonblocking_end], F_GETFL) | O_NONBLOCK);
    if (bulk)
        fcntl(ends[0], F_SETPIPE_SZ, BULK_PIPE);
    return true;
}

struct pipes {
    int in[2], out[2], err[2], link[2];
};

static void close_pipes(struct pipes *p)
{
    int *all = (int *)p;
    for (size_t i = 0; i < sizeof *p / sizeof *all; i++)
        if (all[i] >= 0)
            close(all[i]);
}

static bool make_pipes(struct pipes *p, bool in, bool out, bool err, bool bulk)
{
    memset(p, -1, sizeof *p);
    return (!in || make_pipe(p->in, 1, bulk)) && (!out || make_pipe(p->out, 0, bulk)) &&
           (!err || make_pipe(p->err, 0, false)) && !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->link);
}

/* The same for a terminal: both directions of the agent's end, each as a descriptor that epoll can watch by itself. */
static bool make_terminal(struct pipes *p, uint16_t rows, uint16_t columns)
{
    memset(p, -1, sizeof *p);
    int ends[2];
    if (!open_terminal(ends, rows, columns))
        return false;
    p->out[0] = ends[0];
    p->in[0] = ends[1];
    p->in[1] = fcntl(ends[0], F_DUPFD_CLOEXEC, 0);
    p->out[1] = fcntl(ends[1], F_DUPFD_CLOEXEC, 0);
    return p->in[1] >= 0 && p->out[1] >= 0 && !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p->link);
}

static struct channel *add_channel(uint32_t id, enum kind kind, uint32_t window, pid_t pid, struct pipes *p)
{
    struct channel *c = xrealloc(NULL, sizeof *c);
    *c = (struct channel){.next = agent.channels, .id = id, .kind = kind, .pid = pid, .input_window = INPUT_WINDOW, .index_fd = -1};
    agent.channels = c;
    c->input.fd = -1;
    if (p->in[1] >= 0)
        watch_source(&c->input, ROLE_INPUT, c, p->in[1], 0);
    int outs[2] = {p->out[0], p->err[0]};
    for (int i = 0; i < 2; i++) {
        struct output *o = &c->outputs[i];
        *o = (struct output){.window = window, .cap = UNLIMITED};
        o->source.fd = -1;
        if (outs[i] >= 0)
            watch_source(&o->source, i ? ROLE_STDERR : ROLE_OUTPUT, c, outs[i], 0); /* until OPENED is out */
    }
    watch_source(&c->link, ROLE_LINK, c, p->link[0], EPOLLIN);
    return c;
}

static void refuse_channel(uint32_t id, int error, const char *operation, const char *subject)
{
    send_failure(id, error, operation, subject);
    send_frame(FRAME_CLOSED, id, NULL, 0);
}

/* --- OPEN ------------------------------------------------------------------------------------------------------- */

/* What the agent itself needs of a command's body; the child takes the rest from its copy of this memory. */
struct outline {
    uint32_t flags;
    uint64_t cap[2];
    uint16_t rows, columns;
};

static struct outline outline_of(const struct reader *body, bool terminal)
{
    struct reader flags = *body;
    struct outline o = {.flags = take_u32(&flags), .cap = {UNLIMITED, UNLIMITED}};
    size_t length = terminal ? 20 : 16;
    if (body->left < length)
        return o; /* malformed, which the child says */
    struct reader end = {body->at + body->left - length, length, false};
    for (int i = 0; i < 2; i++)
        o.cap[i] = take_u64(&end);
    if (terminal) {
        o.rows = take_u16(&end);
        o.columns = take_u16(&end);
    }
    return o;
}

static void open_command(uint32_t id, enum kind kind, uint32_t window, struct reader *body)
{
    struct reader copy = *body;
    bool terminal = kind == KIND_TERMINAL;
    struct outline outline = outline_of(body, terminal);
    uint32_t flags = outline.flags;
    struct pipes p;
    if (terminal ? !make_terminal(&p, outline.rows, outline.columns)
                 : !make_pipes(&p, flags & COMMAND_STDIN, true, !(flags & COMMAND_MERGE), false)) {
        int error = errno;
        close_pipes(&p);
        refuse_channel(id, error, terminal ? "pty" : "pipe", terminal ? "/dev/ptmx" : "");
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        int descriptors[] = {p.in[0] < 0 ? agent.null : p.in[0], p.out[1], p.err[1] < 0 ? p.out[1] : p.err[1], p.link[1]};
        arrange(descriptors, 4);
        fcntl(3, F_SETFD, FD_CLOEXEC);
        struct command command;
        if (!take_command(&copy, terminal, &command)) {
            report_failure(3, EBADMSG, "open", "body");
            _exit(0);
        }
        supervise(&command, 3);
    }
    int error = errno;
    int mine[] = {p.in[0], p.out[1], p.err[1], p.link[1]};
    for (int i = 0; i < 4; i++)
        if (mine[i] >= 0)
            close(mine[i]);
    p.in[0] = p.out[1] = p.err[1] = p.link[1] = -1;
    if (pid < 0) {
        close_pipes(&p);
        refuse_channel(id, error, "fork", "");
        return;
    }
    struct channel *c = add_channel(id, kind, window, pid, &p);
    for (int i = 0; i < 2; i++)
        c->outputs[i].cap = outline.cap[i];
}

static void open_worker(uint32_t id, enum kind kind, uint32_t window, struct reader *body)
{
    struct pipes p;
    bool takes = kind == KIND_WRITE || kind == KIND_HYDRATE || kind == KIND_RESTORE;
    bool gives = kind == KIND_READ || kind == KIND_LIST || kind == KIND_PERSIST || kind == KIND_RESTORE ||
                 kind == KIND_CHANGES;
    bool uses_index = kind == KIND_RESTORE || kind == KIND_CHANGES;
    uint32_t index = 0;
    int index_fd = -1;
    if (kind == KIND_PERSIST || kind == KIND_HYDRATE || uses_index) {
        struct reader r = *body;
        (void)take_slice(&r); /* what it is confined to */
        (void)take_slice(&r); /* the root */
        index = take_u32(&r);
        int *kept = uses_index && index ? index_slot(index) : NULL;
        if (uses_index && !kept) {
            refuse_channel(id, ENOENT, "index", "");
            return;
        }
        index_fd = kept ? *kept : index ? memfd_create("index", MFD_CLOEXEC) : -1;
        if (index && index_fd < 0) {
            refuse_channel(id, errno, "memfd_create", "");
            return;
        }
    }
    int events_fd = -1;
    if (kind == KIND_WATCH || kind == KIND_CHANGED) {
        bool usable = kind == KIND_WATCH ? begin_watch() : agent.watch.ready;
        if (!usable) {
            refuse_channel(id, kind == KIND_WATCH ? errno : ENODATA, "watch", "");
            return;
        }
        index_fd = agent.watch.paths;
        events_fd = agent.watch.events;
    }
    if (!make_pipes(&p, takes, gives, false, true)) {
        int error = errno;
        close_pipes(&p);
        refuse_channel(id, error, "pipe", "");
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        int descriptors[] = {p.in[0], p.out[1], STDERR_FILENO, p.link[1], index_fd, events_fd};
        arrange(descriptors, 6);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_IGN);
        work(kind, body);
    }
    int error = errno;
    int mine[] = {p.in[0], p.out[1], p.link[1]};
    for (int i = 0; i < 3; i++)
        if (mine[i] >= 0)
            close(mine[i]);
    p.in[0] = p.out[1] = p.link[1] = -1;
    if (pid < 0) {
        close_pipes(&p);
        if (index && !uses_index)
            close(index_fd);
        refuse_channel(id, error, "fork", "");
        return;
    }
    struct channel *c = add_channel(id, kind, window, pid, &p);
    if (index && !uses_index) {
        c->index = index;
        c->index_fd = index_fd;
    }
    send_opened(c, INPUT_WINDOW, pid);
}

static void forget_index(uint32_t id, struct reader *body)
{
    uint32_t index = take_u32(body);
    for (int i = 0; i < MAX_INDEXES; i++) {
        if (!index || agent.indexes[i].id != index)
            continue;
        close(agent.indexes[i].fd);
        agent.indexes[i].id = 0;
    }
    put_opened(id, 0, getpid());
    send_frame(FRAME_RESULT, id, NULL, 0);
    send_frame(FRAME_CLOSED, id, NULL, 0);
}

/* --- KEEP -------------------------------------------------------------------------------------------------------- */

/* Take signals from now on: of children, and, if the agent stays, of those who want to join. False with errno. */
static bool take_signals(void)
{
    sigset_t taken;
    sigemptyset(&taken);
    sigaddset(&taken, SIGCHLD);
    if (agent.stay)
        sigaddset(&taken, JOIN_ASKED);
    sigprocmask(SIG_BLOCK, &taken, NULL);
    int fd = signalfd(agent.signals, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd >= 0)
        agent.signals = fd;
    return fd >= 0;
}

/* The same of who stops the container: by a descriptor of its own, which is looked at also while the host does not read. */
static bool take_stop(void)
{
    if (getpid() != 1)
        return true; /* SIGTERM ends any other process by itself */
    sigset_t taken;
    sigemptyset(&taken);
    sigaddset(&taken, SIGTERM);
    sigprocmask(SIG_BLOCK, &taken, NULL);
    agent.stop = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
    return agent.stop >= 0;
}

static void keep(uint32_t id, const struct reader *body)
{
    if (!taken_whole(body)) {
        refuse_channel(id, EBADMSG, "open", "KEEP body");
        return;
    }
    agent.stay = true;
    if (!take_signals()) {
        agent.stay = false;
        refuse_channel(id, errno, "signalfd", "");
        return;
    }
    put_opened(id, 0, getpid());
    send_frame(FRAME_RESULT, id, NULL, 0);
    send_frame(FRAME_CLOSED, id, NULL, 0);
}

/* --- SWEEP ------------------------------------------------------------------------------------------------------- */

static void terminate(struct channel *c, const void *request, size_t length)
{
    if (c->ended || c->pid <= 0)
        return;
    if (c->kind == KIND_EXEC || c->kind == KIND_TERMINAL)
        send(c->link.fd, request, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    else
        kill(c->pid, SIGTERM); /* before its input ends, so that it can't take the end for a complete file */
    kill(c->pid, SIGCONT); /* root in the sandbox may have stopped it; last, or it would finish its work first */
}

/* Whether it is a supervisor or a worker: not the sandbox's. */
static bool is_of_a_channel(pid_t pid)
{
    for (struct channel *c = agent.channels; c; c = c->next)
        if (c->pid == pid)
            return true;
    return false;
}

/* Kill the children of the agent that no channel knows, orphans of a supervisor that was killed, and all below them.
 * How many were alive. */
static size_t kill_strays(void)
{
    struct pids own = {0}, below = {0};
    children(getpid(), &own);
    size_t strays = 0;
    for (size_t i = 0; i < own.count; i++) {
        if (is_of_a_channel(own.at[i]))
            continue;
        descendants(own.at[i], &below);
        for (size_t k = 0; k < below.count; k++)
            kill(below.at[k], SIGKILL);
        kill(own.at[i], SIGKILL);
        strays++;
    }
    free(own.at);
    free(below.at);
    return strays;
}

/* Whether nothing but the agent lives. As PID 1 the kernel itself can say so: kill(-1) reaches all but init. */
static bool alone(void)
{
    if (getpid() == 1 && agent.joined)
        return kill_all_but(1, agent.joined) == 0;
    if (getpid() == 1)
        return kill(-1, SIGKILL) < 0 && errno == ESRCH;
    return kill_strays() == 0;
}

static void finish_sweep(void)
{
    struct channel *sweep = agent.sweep;
    bool patient = milliseconds() - agent.sweep_started < SWEEP_PATIENCE;
    for (struct channel *c = agent.channels; c; c = c->next) {
        if (c == sweep || c->ended)
            continue;
        if (patient)
            return;
        kill(c->pid, SIGKILL); /* what it leaves is a stray */
    }
    if (!alone())
        return;
    if (getpid() == 1 && !regain_standing())
        give_up(EX_OSERR, "its limits or its priority were lowered, and can't be brought back");
    struct writer w = {0};
    put_u32(&w, agent.swept);
    put_u8(&w, agent.watch.ready ? look_outside(agent.watch.events, getpid() == 1) : OUTSIDE_UNKNOWN);
    send_frame(FRAME_RESULT, sweep->id, w.bytes, w.used);
    free(w.bytes);
    agent.sweep = NULL;
    forget_channel(sweep);
}

static void open_sweep(uint32_t id)
{
    if (agent.sweep) {
        refuse_channel(id, EALREADY, "sweep", "");
        return;
    }
    struct pids found = {0};
    descendants(getpid(), &found);
    agent.swept = 0;
    for (size_t i = 0; i < found.count; i++) /* a supervisor that no channel knows any more is ending */
        agent.swept += !is_of_a_channel(found.at[i]) && !is_ending(found.at[i]);
    free(found.at);
    static const uint8_t request[] = {REQUEST_TERMINATE, 0, 0, 0, 0};
    for (struct channel *c = agent.channels; c; c = c->next)
        terminate(c, request, sizeof request);
    struct channel *c = xrealloc(NULL, sizeof *c);
    *c = (struct channel){.next = agent.channels, .id = id, .kind = KIND_SWEEP, .index_fd = -1};
    c->input.fd = c->link.fd = c->outputs[0].source.fd = c->outputs[1].source.fd = -1;
    agent.channels = agent.sweep = c;
    agent.sweep_started = milliseconds();
    send_opened(c, 0, getpid());
    finish_sweep();
}

/* --- frames from the host ------------------------------------------------------------------------------------------ */

static void take_hello(struct reader *r)
{
    uint8_t nonce[HELLO_NONCE];
    char magic[8];
    for (int i = 0; i < 8; i++)
        magic[i] = (char)take_u8(r);
    uint16_t version = take_u16(r);
    for (int i = 0; i < HELLO_NONCE; i++)
        nonce[i] = take_u8(r);
    if (!taken_whole(r) || memcmp(magic, HELLO_MAGIC, 8) || agent.greeted)
        give_up(EX_DATAERR, "not a hello");
    agent.greeted = true;
    size_t start = frame_begin(FRAME_HELLO, 0);
    put_bytes(&agent.outbox, HELLO_MAGIC, 8);
    put_u8(&agent.outbox, PROTOCOL_VERSION);
    put_u8(&agent.outbox, 0);
    put_bytes(&agent.outbox, nonce, HELLO_NONCE);
    put_string(&agent.outbox, AGENT_BUILD);
    put_u32(&agent.outbox, (uint32_t)getpid());
    put_u32(&agent.outbox, (uint32_t)getuid());
    frame_end(start);
    if (version != PROTOCOL_VERSION) {
        fcntl(STDOUT_FILENO, F_SETFL, fcntl(STDOUT_FILENO, F_GETFL) & ~O_NONBLOCK);
        flush_outbox(0);
        if (!agent.stay)
            give_up(EX_DATAERR, "the host speaks another version");
        agent.leaving = true;
    }
}

static void take_open(uint32_t id, struct reader *r)
{
    uint8_t kind = take_u8(r);
    uint32_t window = take_u32(r);
    if (r->bad || !id || find_channel(id))
        give_up(EX_DATAERR, "malformed OPEN");
    switch (kind) {
    case KIND_EXEC: case KIND_TERMINAL:
        open_command(id, kind, window, r);
        return;
    case KIND_FORGET:
        forget_index(id, r);
        return;
    case KIND_SWEEP:
        open_sweep(id);
        return;
    case KIND_KEEP:
        keep(id, r);
        return;
    case KIND_READ: case KIND_WRITE: case KIND_STAT: case KIND_LIST: case KIND_MKDIR: case KIND_REMOVE:
    case KIND_RENAME: case KIND_COPY: case KIND_CHMOD: case KIND_CHOWN: case KIND_SYMLINK: case KIND_LINK:
    case KIND_PERSIST: case KIND_HYDRATE: case KIND_RESTORE: case KIND_CHANGES: case KIND_WATCH: case KIND_CHANGED:
        open_worker(id, kind, window, r);
        return;
    default:
        refuse_channel(id, ENOSYS, "open", "kind");
    }
}

static void take_window(struct channel *c, struct reader *r)
{
    uint8_t stream = take_u8(r);
    uint32_t credit = take_u32(r);
    if (!taken_whole(r) || stream > 1)
        give_up(EX_DATAERR, "malformed WINDOW");
    struct output *o = &c->outputs[stream];
    o->window += credit;
    want(&o->source, wanted_output(c, o));
}

static void take_request(struct channel *c, struct reader *r)
{
    struct reader body = *r;
    switch (take_u8(&body)) {
    case REQUEST_SIGNAL:
        if (!c->ended && (c->kind == KIND_EXEC || c->kind == KIND_TERMINAL))
            send(c->link.fd, r->at, r->left, MSG_NOSIGNAL | MSG_DONTWAIT);
        return;
    case REQUEST_TERMINATE:
        terminate(c, r->at, r->left);
        return;
    case REQUEST_DISCARD:
        c->discard = true;
        for (int i = 0; i < 2; i++)
            want(&c->outputs[i].source, wanted_output(c, &c->outputs[i]));
        return;
    case REQUEST_RESIZE: {
        uint16_t rows = take_u16(&body), columns = take_u16(&body);
        if (!taken_whole(&body))
            give_up(EX_DATAERR, "malformed REQUEST");
        if (c->kind == KIND_TERMINAL && c->outputs[0].source.fd >= 0)
            resize_terminal(c->outputs[0].source.fd, rows, columns);
        return;
    }
    default:
        give_up(EX_DATAERR, "unknown REQUEST");
    }
}

static void take_frame(enum frame_type type, uint32_t id, struct reader *r)
{
    if (!agent.greeted && type != FRAME_HELLO)
        give_up(EX_DATAERR, "no hello");
    if (type == FRAME_HELLO) {
        take_hello(r);
        return;
    }
    if (type == FRAME_OPEN) {
        take_open(id, r);
        return;
    }
    struct channel *c = find_channel(id);
    switch (type) {
    case FRAME_DATA:
        if (take_u8(r) != STREAM_MAIN || r->bad || !r->left)
            give_up(EX_DATAERR, "malformed DATA");
        if (c)
            take_data(c, r->at, r->left);
        break;
    case FRAME_WINDOW:
        if (c)
            take_window(c, r);
        break;
    case FRAME_EOF:
        if (take_u8(r) != STREAM_MAIN || (take_u64(r), !taken_whole(r)))
            give_up(EX_DATAERR, "malformed EOF");
        if (c) {
            c->input_ended = true;
            if (c->input.fd >= 0)
                flush_input(c);
        }
        break;
    case FRAME_REQUEST:
        if (r->left > 64)
            give_up(EX_DATAERR, "malformed REQUEST");
        if (c)
            take_request(c, r);
        break;
    default:
        give_up(EX_DATAERR, "unknown frame");
    }
    if (c)
        settle(c);
}

/* Take the whole frames of the inbox; how many bytes they were. */
static size_t take_frames(void)
{
    size_t at = 0;
    while (agent.inbox.used - at >= FRAME_HEADER) {
        const uint8_t *header = agent.inbox.bytes + at;
        uint32_t length = little_endian(header);
        enum frame_type type = header[4];
        if (length < 5 || length - 5 > (type == FRAME_OPEN ? MAX_OPEN : MAX_PAYLOAD))
            give_up(EX_DATAERR, "frame beyond its bound");
        if (agent.inbox.used - at < 4 + (size_t)length) {
            reserve(&agent.inbox, 4 + (size_t)length);
            break;
        }
        struct reader payload = {header + FRAME_HEADER, length - 5, false};
        take_frame(type, little_endian(header + 5), &payload);
        at += 4 + (size_t)length;
    }
    return at;
}

/* False at the end of the host's bytes. */
static bool read_host(void)
{
    reserve(&agent.inbox, 256 * 1024);
    ssize_t n = read(STDIN_FILENO, agent.inbox.bytes + agent.inbox.used, agent.inbox.room - agent.inbox.used);
    if (n == 0)
        return false;
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    agent.inbox.used += (size_t)n;
    size_t taken = take_frames();
    memmove(agent.inbox.bytes, agent.inbox.bytes + taken, agent.inbox.used - taken);
    agent.inbox.used -= taken;
    return true;
}

/* --- hosts that come and go ---------------------------------------------------------------------------------------- */

/* Its commands go on, with nobody to read or write; its other operations end. What is next said on a channel is the next host's. */
static void leave_channel(struct channel *c)
{
    if (c->id && c->kind != KIND_EXEC && c->kind != KIND_TERMINAL)
        terminate(c, NULL, 0); /* before its input ends */
    c->id = c->index = 0;
    c->discard = true;
    drop_source(&c->input);
    free(c->pending);
    c->pending = NULL;
    c->pending_at = c->pending_used = 0;
    for (int i = 0; i < 2; i++)
        want(&c->outputs[i].source, wanted_output(c, &c->outputs[i]));
}

static void leave_host(void)
{
    agent.leaving = agent.present = agent.greeted = false;
    agent.inbox.used = agent.outbox.used = agent.outbox_at = 0;
    struct source *streams[] = {&agent.standard_input, &agent.standard_output};
    for (int fd = 0; fd < 2; fd++) {
        if (registered(streams[fd]->role, streams[fd]->events))
            epoll_ctl(agent.epoll, EPOLL_CTL_DEL, fd, NULL);
        streams[fd]->fd = -1;
        dup2(agent.null, fd); /* an open descriptor keeps the number from others */
    }
    if (agent.joined)
        kill(agent.joined, SIGKILL);
    agent.joined = 0;
    struct channel *sweep = agent.sweep;
    agent.sweep = NULL;
    for (struct channel *c = agent.channels, *next; c; c = next) {
        next = c->next;
        leave_channel(c);
        if (c == sweep)
            forget_channel(c);
        else
            settle(c);
    }
    for (int i = 0; i < MAX_INDEXES; i++)
        if (agent.indexes[i].id) {
            close(agent.indexes[i].fd);
            agent.indexes[i].id = 0;
        }
    end_watch();
}

static void begin_host(void)
{
    agent.present = true;
    watch_source(&agent.standard_input, ROLE_STDIN, NULL, STDIN_FILENO, EPOLLIN);
    watch_source(&agent.standard_output, ROLE_STDOUT, NULL, STDOUT_FILENO, 0);
}

static void take_join(pid_t pid, uid_t uid)
{
    if (!agent.stay || uid != getuid() || pid <= 0)
        return;
    if (agent.present) {
        kill(pid, JOIN_REFUSED);
        return;
    }
    if (!take_over(pid)) {
        bool foreign = errno == EPERM;
        dprintf(STDERR_FILENO, "agent: join: %s\n", strerror(errno));
        if (!foreign)
            kill(pid, SIGKILL); /* what it began can't be finished */
        return;
    }
    kill(pid, JOIN_TAKEN);
    agent.joined = pid;
    begin_host();
}

/* --- the loop ------------------------------------------------------------------------------------------------------ */

static void take_signal(void)
{
    struct signalfd_siginfo signal;
    if (read(agent.signals, &signal, sizeof signal) == sizeof signal && signal.ssi_signo == JOIN_ASKED)
        take_join((pid_t)signal.ssi_pid, signal.ssi_uid);
}

static void reap(void)
{
    /* Supervisors and workers end by themselves. One that was killed has left orphans; killing these brings up theirs. */
    for (int status; waitpid(-1, &status, WNOHANG) > 0;)
        agent.strays |= WIFSIGNALED(status);
    if (agent.strays)
        agent.strays = kill_strays() > 0;
}

/* Whether anything is left to serve. */
static bool dispatch(struct source *s, uint32_t events)
{
    struct channel *c = s->channel;
    switch (s->role) {
    case ROLE_STDIN:
        return read_host();
    case ROLE_STDOUT:
        return true; /* the loop flushes after every event */
    case ROLE_SIGNALS:
        take_signal();
        reap();
        break;
    case ROLE_STOP:
        heed_stop();
        return true;
    case ROLE_INPUT:
        if (events & (EPOLLERR | EPOLLHUP)) /* a pipe and a terminal that nobody reads any more */
            refuse_input(c);
        else
            flush_input(c);
        break;
    case ROLE_OUTPUT:
    case ROLE_STDERR:
        read_output(c, &c->outputs[s->role == ROLE_STDERR]);
        break;
    case ROLE_LINK:
        read_link(c);
        break;
    }
    if (c)
        settle(c);
    return true;
}

/* Who runs an engine, or tests, in the background of a shell lets them ignore Ctrl-C, and all that they start inherits it. */
static void ignore_nothing(void)
{
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
}

static void prepare(void)
{
    ignore_nothing();
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &agent.files) == 0) { /* each command takes up to five descriptors */
        struct rlimit raised = {agent.files.rlim_max, agent.files.rlim_max};
        if (raised.rlim_cur > 65536)
            raised.rlim_cur = 65536;
        setrlimit(RLIMIT_NOFILE, &raised);
    }
    note_standing();
    for (int fd = 0; fd < 2; fd++)
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    agent.watch.events = agent.watch.paths = -1;
    agent.epoll = epoll_create1(EPOLL_CLOEXEC);
    agent.signals = agent.stop = -1;
    bool signals = take_signals() && take_stop();
    agent.null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (agent.epoll < 0 || !signals)
        give_up(EX_OSERR, "epoll_create1 or signalfd");
    begin_host();
    watch_source(&agent.signal_source, ROLE_SIGNALS, NULL, agent.signals, EPOLLIN);
    if (agent.stop >= 0)
        watch_source(&agent.stop_source, ROLE_STOP, NULL, agent.stop, EPOLLIN);
}

int serve(bool stay)
{
    agent.stay = stay;
    /* Nobody without CAP_SYS_PTRACE traces the agent, or opens its streams and its memory below /proc (ptrace(2)), and what is
     * forked inherits that: supervisors, workers, and a command until its execve(2). */
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* where the agent is not PID 1, orphans still come to it */
    prepare();
    for (;;) {
        /* One event at a time, because handling one may free the channel of another. While a sweep waits for
         * processes that nobody reports (orphans, forks of forks), it looks again every few milliseconds. */
        struct epoll_event event;
        int n = epoll_wait(agent.epoll, &event, 1, agent.sweep ? 2 : -1);
        if (n < 0 && errno != EINTR)
            give_up(EX_OSERR, "epoll_wait");
        if (n == 1 && !dispatch(event.data.ptr, event.events)) {
            if (!agent.stay)
                return 0;
            agent.leaving = true;
        }
        if (agent.leaving)
            leave_host();
        if (agent.sweep)
            finish_sweep();
        flush_outbox(OUTBOX_HIGH);
        want(&agent.standard_output, outbox_left() ? EPOLLOUT : 0);
    }
}
