/* What a process may do to its container's init without any capability, and small images have no program for. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A SIGTERM as if from outside: who queues a signal chooses the pid that it has, 0 is what such a sender has. */
static int forge(void)
{
    siginfo_t signal = {.si_signo = SIGTERM, .si_code = SI_QUEUE};
    return (int)syscall(SYS_rt_sigqueueinfo, 1, SIGTERM, &signal);
}

static int lower(int resource, rlim_t to, int hard_too)
{
    struct rlimit bound;
    if (prlimit(1, resource, NULL, &bound))
        return -1;
    bound.rlim_cur = to;
    if (hard_too)
        bound.rlim_max = to;
    return prlimit(1, resource, &bound, NULL);
}

static int idle(void)
{
    int priority = 0;
    return (int)syscall(SYS_sched_setscheduler, 1, 5 /* SCHED_IDLE */, &priority);
}

int main(int argc, char **argv)
{
    const char *what = argc == 2 ? argv[1] : "";
    int outcome = !strcmp(what, "forge") ? forge()
                  : !strcmp(what, "soft") ? lower(RLIMIT_NPROC, 1, 0)
                  : !strcmp(what, "hard") ? lower(RLIMIT_STACK, 128 * 1024, 1)
                  : !strcmp(what, "idle") ? idle()
                                          : (errno = EINVAL, -1);
    if (outcome)
        perror(what);
    return outcome != 0;
}
