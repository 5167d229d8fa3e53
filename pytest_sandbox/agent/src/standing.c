#include "standing.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SELF 0           /* as a pid */
#define PROCESS 1        /* IOPRIO_WHO_PROCESS */
#define MAX_CPUS 8192
#define SCHED_ATTR 56    /* bytes of struct sched_attr, with what Linux 5.3 has added (sched_setattr(2)); older ones fill less */

static const char oom_score[] = "/proc/self/oom_score_adj";

static struct {
    struct rlimit limits[RLIM_NLIMITS];
    uint32_t scheduling[SCHED_ATTR / 4];
    uint8_t cpus[MAX_CPUS / 8];
    long io_priority, cpu_bytes;
    char oom_score[16];
} noted;

/* Not sched_getscheduler(3), for musl has none. */
static void read_scheduling(uint32_t scheduling[SCHED_ATTR / 4])
{
    memset(scheduling, 0, SCHED_ATTR);
    (void)!syscall(SYS_sched_getattr, SELF, scheduling, SCHED_ATTR, 0);
}

static void read_oom_score(char score[16])
{
    memset(score, 0, 16);
    int fd = open(oom_score, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!read(fd, score, 15);
    close(fd);
}

void note_standing(void)
{
    for (int i = 0; i < RLIM_NLIMITS; i++)
        getrlimit(i, &noted.limits[i]);
    read_scheduling(noted.scheduling);
    read_oom_score(noted.oom_score);
    noted.io_priority = syscall(SYS_ioprio_get, PROCESS, SELF);
    noted.cpu_bytes = syscall(SYS_sched_getaffinity, SELF, sizeof noted.cpus, noted.cpus);
}

static bool regain_limits(void)
{
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        struct rlimit now;
        if (getrlimit(i, &now) || (now.rlim_cur == noted.limits[i].rlim_cur && now.rlim_max == noted.limits[i].rlim_max))
            continue;
        if (setrlimit(i, &noted.limits[i])) /* the hard one, which nobody raises again */
            return false;
    }
    return true;
}

static bool regain_scheduling(void)
{
    uint32_t now[SCHED_ATTR / 4];
    read_scheduling(now);
    return !memcmp(now, noted.scheduling, SCHED_ATTR) || !syscall(SYS_sched_setattr, SELF, noted.scheduling, 0);
}

static bool regain_io_priority(void)
{
    return syscall(SYS_ioprio_get, PROCESS, SELF) == noted.io_priority ||
           !syscall(SYS_ioprio_set, PROCESS, SELF, noted.io_priority);
}

static bool regain_oom_score(void)
{
    char now[16];
    read_oom_score(now);
    if (!strcmp(now, noted.oom_score))
        return true;
    int fd = open(oom_score, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, noted.oom_score, strlen(noted.oom_score)) >= 0;
    if (fd >= 0)
        close(fd);
    return written;
}

bool regain_standing(void)
{
    /* Which CPUs there are whoever runs the engine may change as well; then these are as many of them as are left. */
    if (noted.cpu_bytes > 0)
        (void)!syscall(SYS_sched_setaffinity, SELF, noted.cpu_bytes, noted.cpus);
    return regain_limits() && regain_scheduling() && regain_io_priority() && regain_oom_score();
}
