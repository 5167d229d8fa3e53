#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "terminal.h"
#include "tree.h"
#include "user.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
/* After SIGKILL the kernel needs a moment, and a process forked while /proc was being read needs another look. */
#define KILL_AGAIN_MS 5

void report(int link, enum report what, const void *body, size_t length)
{
    uint8_t packet[1 + MAX_PAYLOAD];
    if (length > MAX_PAYLOAD)
        length = MAX_PAYLOAD;
    packet[0] = (uint8_t)what;
    if (length)
        memcpy(packet + 1, body, length);
    while (send(link, packet, 1 + length, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

void report_failure(int link, int error, const char *operation, const char *subject)
{
    struct writer w = {0};
    put_u32(&w, (uint32_t)error);
    put_string(&w, operation);
    size_t length = strlen(subject);
    put_slice(&w, subject, length > 4096 ? 4096 : length);
    report(link, REPORT_FAILURE, w.bytes, w.used);
    free(w.bytes);
}

bool take_command(struct reader *r, bool terminal, struct command *c)
{
    uint32_t arguments, variables;
    *c = (struct command){0};
    c->flags = take_u32(r);
    c->arguments = take_strings(r, &arguments);
    c->environment = take_strings(r, &variables);
    c->cwd = take_string(r);
    c->user = take_string(r);
    c->file_size = take_u64(r);
    c->open_files = take_u64(r);
    c->cap[0] = take_u64(r);
    c->cap[1] = take_u64(r);
    c->terminal = terminal;
    if (terminal) {
        c->rows = take_u16(r);
        c->columns = take_u16(r);
    }
    return taken_whole(r) && (terminal || arguments > 0);
}

/* --- the environment --------------------------------------------------------------------------------------------- */

extern char **environ;

static size_t count_of(char **strings)
{
    size_t n = 0;
    while (strings[n])
        n++;
    return n;
}

static char **find_variable(char **variables, const char *assignment)
{
    size_t name = strcspn(assignment, "=");
    for (; *variables; variables++)
        if (!strncmp(*variables, assignment, name) && ((*variables)[name] == '=' || !(*variables)[name]))
            return variables;
    return NULL;
}

static void set_variable(char **variables, const char *assignment, bool replace)
{
    char **there = find_variable(variables, assignment);
    if (there && !replace)
        return;
    if (!there) {
        there = variables + count_of(variables);
        there[1] = NULL;
    }
    *there = (char *)assignment;
}

static const char *joined(const char *name, const char *value)
{
    char *assignment = xrealloc(NULL, strlen(name) + strlen(value) + 2);
    strcpy(assignment, name);
    strcat(assignment, "=");
    return strcat(assignment, value);
}

/* The agent's own variables, then the user's, then the body's, each over the one before. The agent's HOME is not a user's. */
static char **environment_for(const struct command *c, const struct user *user)
{
    char *nothing[] = {NULL};
    char **base = c->flags & COMMAND_REPLACE_ENV ? nothing : environ;
    char **variables = xrealloc(NULL, (count_of(base) + count_of(c->environment) + 8) * sizeof *variables);
    *variables = NULL;
    for (char **v = base; *v; v++)
        set_variable(variables, *v, true);
    if (user->given) {
        set_variable(variables, joined("HOME", user->home), true);
        set_variable(variables, joined("SHELL", user->shell), true);
        if (*user->name) {
            set_variable(variables, joined("USER", user->name), true);
            set_variable(variables, joined("LOGNAME", user->name), true);
        }
    }
    if (!(c->flags & COMMAND_REPLACE_ENV))
        set_variable(variables, "PATH=" DEFAULT_PATH, false);
    for (char **v = c->environment; *v; v++)
        set_variable(variables, *v, true);
    return variables;
}

/* --- the command's own process ------------------------------------------------------------------------------------ */

struct start_failure {
    int error;
    char operation[16];
    char subject[2048];
};

static _Noreturn void cannot_start(int pipe, int error, const char *operation, const char *subject)
{
    struct start_failure failure = {.error = error};
    snprintf(failure.operation, sizeof failure.operation, "%s", operation);
    snprintf(failure.subject, sizeof failure.subject, "%s", subject);
    (void)!write(pipe, &failure, sizeof failure);
    _exit(127);
}

/* execvpe(3) with two differences: PATH is the command's own, and a file without `#!` is ENOEXEC, not a shell script. */
static int execute(const char *file, char **arguments, char **variables)
{
    if (strchr(file, '/') || !*file) {
        execve(file, arguments, variables);
        return errno;
    }
    char **path_variable = find_variable(variables, "PATH=");
    const char *path = path_variable ? *path_variable + 5 : DEFAULT_PATH;
    int error = ENOENT;
    for (;;) {
        size_t length = strcspn(path, ":");
        char *candidate = xrealloc(NULL, length + strlen(file) + 3);
        sprintf(candidate, "%.*s/%s", length ? (int)length : 1, length ? path : ".", file);
        execve(candidate, arguments, variables);
        if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
            return errno;
        struct stat st;
        /* EACCES for a directory of that name, or for a part of PATH that may not be searched, is not this program's. */
        if (errno == EACCES && stat(candidate, &st) == 0 && S_ISREG(st.st_mode))
            error = EACCES;
        free(candidate);
        if (!path[length])
            return error;
        path += length + 1;
    }
}

/* If memory runs out the kernel should end the command, not the agent. Raising one's own score needs no privilege. */
static void volunteer_for_oom_killer(void)
{
    static const char score[] = "/proc/self/oom_score_adj";
    int fd = open(score, O_WRONLY | O_CLOEXEC);
    if (fd < 0 && errno == EACCES) { /* it is root's while nobody may look into this process (proc(5)) */
        prctl(PR_SET_DUMPABLE, 1);
        fd = open(score, O_WRONLY | O_CLOEXEC);
        prctl(PR_SET_DUMPABLE, 0);
    }
    if (fd < 0)
        return;
    (void)!write(fd, "500", 3);
    close(fd);
}

/* The arguments, or the shell that the passwd has for the user; not a login shell, so the environment stays as given. */
static char **arguments_or_shell(const struct command *c, const struct user *user)
{
    static char *shell[2];
    if (c->arguments[0])
        return c->arguments;
    struct user own;
    char uid[16];
    snprintf(uid, sizeof uid, "%u", (unsigned)getuid());
    if (!user->given && find_user(uid, &own))
        user = &own;
    shell[0] = (char *)user->shell;
    return shell;
}

/* Both limits of each, so that the program can't raise them again. */
static void limit(const struct command *c, int failures)
{
    struct rlimit bound = {c->file_size, c->file_size};
    if (c->file_size != UNLIMITED && setrlimit(RLIMIT_FSIZE, &bound))
        cannot_start(failures, errno, "setrlimit", "file_size");
    bound = (struct rlimit){c->open_files, c->open_files};
    if (c->open_files != UNLIMITED) {
        if (setrlimit(RLIMIT_NOFILE, &bound))
            cannot_start(failures, errno, "setrlimit", "open_files");
    } else if (getrlimit(RLIMIT_NOFILE, &bound) == 0 && bound.rlim_cur > 1024) {
        bound.rlim_cur = 1024; /* what programs expect, select(2) among them; the agent had raised its own */
        setrlimit(RLIMIT_NOFILE, &bound);
    }
}

/* What root may do beyond other users, of all that is executed from here on: with an empty bounding set no program has it,
 * whoever runs it (capabilities(7)). What this process itself has, it keeps; it is still to become another user. */
static bool drop_bounding_set(void)
{
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++) /* EINVAL beyond the kernel's last one */
        if (prctl(PR_CAPBSET_DROP, capability))
            return false;
    return true;
}

static bool drop_own_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    (void)!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* they would go with the permitted ones anyway */
    return !syscall(SYS_capset, &header, none) && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static _Noreturn void run(const struct command *c, const struct user *user, int failures)
{
    setsid();
    if (c->terminal && control_terminal(user->given ? user->uid : getuid()))
        cannot_start(failures, errno, "pty", "controlling terminal");
    volunteer_for_oom_killer();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL); /* an ignored signal would stay ignored across execve(2) */
    limit(c, failures);
    umask(022);
    if (c->flags & COMMAND_BARE && !drop_bounding_set())
        cannot_start(failures, errno, "capabilities", "bounding set");
    if (become(user))
        cannot_start(failures, errno, "setuid", c->user);
    if (c->flags & COMMAND_BARE && !drop_own_capabilities())
        cannot_start(failures, errno, "capabilities", "capset");
    if (chdir(c->cwd))
        cannot_start(failures, errno, "chdir", c->cwd);
    char **variables = environment_for(c, user);
    char **arguments = arguments_or_shell(c, user);
    int error = execute(arguments[0], arguments, variables);
    cannot_start(failures, error, "execve", arguments[0]);
}

/* --- the supervisor ----------------------------------------------------------------------------------------------- */

enum hit { HIT_MEMORY, HIT_PIDS, HIT_KINDS };

struct supervisor {
    int link;
    bool terminal;
    pid_t command;    /* 0 once it has been reaped */
    uint64_t started; /* microseconds, CLOCK_MONOTONIC */
    uint64_t hits[HIT_KINDS]; /* of the whole sandbox, before the command began */
    bool killing;
    int64_t kill_at;  /* microseconds; -1: no one asked */
};

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* How often the sandbox has hit a limit, from the files of its control group as the engine mounts them, version 2 or 1
 * (docs.kernel.org, admin-guide/cgroup-v2 and cgroup-v1/memory); 0 where there are none. */
static uint64_t count_hits(enum hit kind)
{
    static const char *const files[][2] = {
        [HIT_MEMORY] = {"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"},
        [HIT_PIDS] = {"/sys/fs/cgroup/pids.events", "/sys/fs/cgroup/pids/pids.events"},
    };
    static const char *const words[] = {[HIT_MEMORY] = "oom_kill ", [HIT_PIDS] = "max "};
    char text[512];
    int fd = open(files[kind][0], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fd = open(files[kind][1], O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    for (const char *line = text; line; line = strchr(line, '\n'), line += !!line)
        if (!strncmp(line, words[kind], strlen(words[kind])))
            return strtoull(line + strlen(words[kind]), NULL, 10);
    return 0;
}

/* Which limits were hit since the command began, a bit for each. As a plain process the agent shares its group with others. */
static uint8_t hits_since(const struct supervisor *s)
{
    uint8_t hits = 0;
    for (int kind = 0; kind < HIT_KINDS && getppid() == 1; kind++)
        if (count_hits(kind) > s->hits[kind])
            hits |= (uint8_t)(1 << kind);
    return hits;
}

static uint64_t microseconds(struct timeval t) { return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec; }

static void report_exit(struct supervisor *s, int status, const struct rusage *usage, bool survivors)
{
    struct writer w = {0};
    put_u32(&w, (uint32_t)(WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status)));
    put_u8(&w, survivors);
    put_u64(&w, 0); /* the agent, which reads the pipes, fills in the two totals */
    put_u64(&w, 0);
    put_u64(&w, (uint64_t)now() - s->started);
    put_u64(&w, microseconds(usage->ru_utime));
    put_u64(&w, microseconds(usage->ru_stime));
    put_u64(&w, (uint64_t)usage->ru_maxrss * 1024);
    put_u8(&w, status ? hits_since(s) : 0);
    report(s->link, REPORT_EXIT, w.bytes, w.used);
    free(w.bytes);
}

/* Reap what has ended. Whether any child is left: as a subreaper this process inherits the orphans of its whole tree. */
static bool reap(struct supervisor *s)
{
    bool exited = false, left = true;
    int exit_status = 0;
    struct rusage exit_usage;
    for (;;) {
        int status;
        struct rusage usage;
        pid_t pid = wait4(-1, &status, WNOHANG, &usage);
        if (pid < 0 && errno == EINTR)
            continue;
        left = pid == 0;
        if (pid <= 0)
            break;
        if (pid == s->command) {
            s->command = 0;
            exited = true;
            exit_status = status;
            exit_usage = usage;
        }
    }
    if (exited)
        report_exit(s, exit_status, &exit_usage, left);
    return left;
}

static void carry_out(struct supervisor *s, const uint8_t *body, size_t length)
{
    struct reader r = {body, length, false};
    switch (take_u8(&r)) {
    case REQUEST_SIGNAL: {
        uint32_t number = take_u32(&r);
        bool whole_tree = take_u8(&r);
        if (!taken_whole(&r) || number < 1 || number > 64)
            return;
        if (whole_tree)
            signal_descendants((int)number);
        else if (s->command) /* not reaped yet, so the number is still its own */
            kill(s->command, (int)number);
        return;
    }
    case REQUEST_TERMINATE: {
        uint32_t grace = take_u32(&r);
        if (!taken_whole(&r))
            return;
        int64_t deadline = now() + (int64_t)grace * 1000;
        if (grace && s->kill_at < 0) {
            if (s->terminal)
                signal_descendants(SIGHUP); /* as when its window is closed: an interactive shell ignores SIGTERM */
            signal_descendants(SIGTERM);
            signal_descendants(SIGCONT); /* a stopped process takes SIGTERM only when it goes on */
        }
        if (s->kill_at < 0 || deadline < s->kill_at)
            s->kill_at = deadline;
        return;
    }
    }
}

static int wait_ms(const struct supervisor *s)
{
    if (s->killing)
        return KILL_AGAIN_MS;
    if (s->kill_at < 0)
        return -1;
    int64_t left = s->kill_at - now();
    return left <= 0 ? 0 : (int)(left / 1000) + 1;
}

static void kill_if_due(struct supervisor *s)
{
    if (s->kill_at < 0 || now() < s->kill_at)
        return;
    s->killing = true;
    /* Whoever forks faster than /proc is read is caught by the next look; who sleeps uninterruptibly is waited for in poll(). */
    for (int look = 0; look < 50 && signal_descendants(SIGKILL) > 0 && reap(s); look++)
        ;
}

static _Noreturn void watch(struct supervisor *s, int signals)
{
    struct pollfd fds[2] = {{.fd = s->link, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    while (reap(s)) {
        kill_if_due(s);
        if (poll(fds, 2, wait_ms(s)) <= 0)
            continue;
        if (fds[1].revents) {
            struct signalfd_siginfo ignored;
            (void)!read(signals, &ignored, sizeof ignored);
        }
        if (fds[0].revents) {
            uint8_t body[64];
            ssize_t n = recv(s->link, body, sizeof body, MSG_DONTWAIT);
            if (n > 0) {
                carry_out(s, body, (size_t)n);
            } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
                s->kill_at = 0; /* the agent is gone: nothing of ours outlives it */
                fds[0].fd = -1;
            }
        }
    }
    _exit(0);
}

_Noreturn void supervise(const struct command *c, int link)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_NAME, "supervisor");
    sigset_t all, child;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL); /* a command's `kill -TERM -1` is not meant for its supervisor */
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);

    struct user user;
    int failures[2];
    const char *program = c->arguments[0] ? c->arguments[0] : "shell";
    if (!find_user(c->user, &user)) {
        report_failure(link, ENOENT, "user", c->user);
        _exit(0);
    }
    if (signals < 0 || pipe2(failures, O_CLOEXEC)) {
        report_failure(link, errno, "pipe", program);
        _exit(0);
    }
    struct supervisor s = {.link = link, .terminal = c->terminal, .kill_at = -1, .started = (uint64_t)now()};
    for (int kind = 0; kind < HIT_KINDS && getppid() == 1; kind++)
        s.hits[kind] = count_hits(kind);
    s.command = fork();
    if (s.command == 0)
        run(c, &user, failures[1]);
    if (s.command < 0) {
        report_failure(link, errno, "fork", program);
        _exit(0);
    }
    /* Or the pipes would never end. A terminal is held on to: while a program has closed it, it may still open /dev/tty. */
    for (int fd = c->terminal ? 1 : 0; fd < 3; fd++)
        close(fd);
    close(failures[1]);
    struct start_failure failure;
    if (read(failures[0], &failure, sizeof failure) == sizeof failure) {
        report_failure(link, failure.error, failure.operation, failure.subject);
        _exit(0); /* the child that reported is a zombie of ours and goes to the agent */
    }
    close(failures[0]);
    struct writer opened = {0};
    put_u32(&opened, (uint32_t)s.command);
    report(link, REPORT_OPENED, opened.bytes, opened.used);
    watch(&s, signals);
}
