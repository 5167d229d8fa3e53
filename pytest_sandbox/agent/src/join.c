#include "join.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define HELLO_MS 1000

_Static_assert(JOIN_ASKED == SIGUSR1 && JOIN_TAKEN == SIGUSR1 && JOIN_REFUSED == SIGUSR2, "join.h has their numbers");

int join(pid_t agent)
{
    sigset_t answers;
    int answer;
    sigemptyset(&answers);
    sigaddset(&answers, JOIN_TAKEN);
    sigaddset(&answers, JOIN_REFUSED);
    sigprocmask(SIG_BLOCK, &answers, NULL);
    if (kill(agent, JOIN_ASKED)) {
        fprintf(stderr, "agent: join %d: %s\n", (int)agent, strerror(errno));
        return 69; /* EX_UNAVAILABLE */
    }
    /* Until the agent ends this process with its session, or the container does. The agent has opened what is below
     * /proc/PID/fd; from then on nobody else may. */
    while (sigwait(&answers, &answer) || answer == JOIN_TAKEN)
        prctl(PR_SET_DUMPABLE, 0);
    fputs("agent: in use by another host\n", stderr);
    /* Podman loses that with input that nobody has read, and the host's hello is on its way. */
    struct pollfd hello = {.fd = STDIN_FILENO, .events = POLLIN};
    char unread[4096];
    if (poll(&hello, 1, HELLO_MS) > 0 && read(STDIN_FILENO, unread, sizeof unread) < 0)
        perror("agent: join");
    return 75; /* EX_TEMPFAIL */
}

/* Whether it is an agent, too: any process of root's may have sent the signal, and is not to lose its streams by that. */
static bool is_agent(pid_t pid)
{
    char path[64];
    struct stat own, theirs;
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    return !stat("/proc/self/exe", &own) && !stat(path, &theirs) && own.st_dev == theirs.st_dev && own.st_ino == theirs.st_ino;
}

bool take_over(pid_t joining)
{
    bool taken = true;
    if (!is_agent(joining)) {
        errno = EPERM;
        return false;
    }
    for (int fd = 0; fd < 2 && taken; fd++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)joining, fd);
        int stream = open(path, (fd ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
        taken = stream >= 0 && dup2(stream, fd) == fd;
        if (stream >= 0)
            close(stream);
    }
    return taken;
}
