#include "tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wire.h"

#define EXITING 0x4 /* PF_EXITING of linux/sched.h, among the flags of proc_pid_stat(5) */

struct process {
    pid_t pid, parent;
};

/* Read what follows the name in /proc/PID/stat (proc_pid_stat(5)); that may hold anything, also `) Z 1`. */
static bool read_status(const char *pid, pid_t *parent, char *state, unsigned *flags)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = 0;
    char *after_name = strrchr(text, ')');
    int number;
    if (!after_name || sscanf(after_name + 1, " %c %d %*d %*d %*d %*d %u", state, &number, flags) != 3)
        return false;
    *parent = number;
    return true;
}

static bool read_stat(const char *pid, pid_t *parent, char *state)
{
    unsigned flags;
    return read_status(pid, parent, state, &flags);
}

static void add(struct pids *pids, pid_t pid)
{
    if (pids->count == pids->room) {
        pids->room = pids->room ? 2 * pids->room : 64;
        pids->at = xrealloc(pids->at, pids->room * sizeof *pids->at);
    }
    pids->at[pids->count++] = pid;
}

static bool includes(const struct pids *pids, pid_t pid)
{
    for (size_t i = 0; i < pids->count; i++)
        if (pids->at[i] == pid)
            return true;
    return false;
}

/* The kernel's own list of children, where it is built in (CONFIG_PROC_CHILDREN); false where it isn't. It costs what the tree
 * has, not what the machine has. */
static bool children_of(pid_t pid, struct pids *found)
{
    char path[96];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        return true; /* gone, and so are its children: init has them */
    bool supported = true;
    for (struct dirent *task; supported && (task = readdir(tasks));) {
        if (task->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/children", (int)pid, task->d_name);
        FILE *list = fopen(path, "re");
        if (!list) {
            char state;
            pid_t parent;
            supported = !read_stat(task->d_name, &parent, &state); /* the thread ended, or the file does not exist */
            continue;
        }
        for (int child; fscanf(list, "%d", &child) == 1;)
            add(found, child);
        fclose(list);
    }
    closedir(tasks);
    return supported;
}

/* The same by reading every process there is; `below` takes in the children's children too. */
static void search_all(pid_t of, bool below, struct pids *found)
{
    struct process *all = NULL;
    size_t count = 0, room = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        char state;
        struct process p = {.pid = atoi(entry->d_name)};
        if (p.pid <= 0 || !read_stat(entry->d_name, &p.parent, &state))
            continue;
        if (count == room) {
            room = room ? 2 * room : 256;
            all = xrealloc(all, room * sizeof *all);
        }
        all[count++] = p;
    }
    if (proc)
        closedir(proc);
    for (bool grew = true; grew;) {
        grew = false;
        for (size_t i = 0; i < count; i++) {
            if (all[i].parent != of && !(below && includes(found, all[i].parent)))
                continue;
            if (includes(found, all[i].pid))
                continue;
            add(found, all[i].pid);
            grew = true;
        }
    }
    free(all);
}

static void search(pid_t of, bool below, struct pids *found)
{
    found->count = 0;
    bool supported = children_of(of, found);
    for (size_t i = 0; supported && below && i < found->count; i++)
        supported = children_of(found->at[i], found);
    if (!supported) {
        found->count = 0;
        search_all(of, below, found);
    }
    size_t living = 0;
    for (size_t i = 0; i < found->count; i++) {
        char name[16], state;
        pid_t parent;
        snprintf(name, sizeof name, "%d", (int)found->at[i]);
        if (read_stat(name, &parent, &state) && state != 'Z' && state != 'X')
            found->at[living++] = found->at[i];
    }
    found->count = living;
}

void children(pid_t of, struct pids *found) { search(of, false, found); }
void descendants(pid_t of, struct pids *found) { search(of, true, found); }

bool is_ending(pid_t pid)
{
    char name[16], state;
    unsigned flags;
    pid_t parent;
    snprintf(name, sizeof name, "%d", (int)pid);
    return !read_status(name, &parent, &state, &flags) || flags & EXITING;
}

size_t kill_all_but(pid_t one, pid_t other)
{
    size_t count = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        char state;
        pid_t parent, pid = atoi(entry->d_name);
        if (pid <= 0 || pid == one || pid == other || !read_stat(entry->d_name, &parent, &state) || state == 'Z' || state == 'X')
            continue;
        kill(pid, SIGKILL);
        count++;
    }
    if (proc)
        closedir(proc);
    return count;
}

size_t signal_descendants(int signal)
{
    struct pids found = {0};
    descendants(getpid(), &found);
    for (size_t i = 0; i < found.count; i++)
        kill(found.at[i], signal);
    size_t count = found.count;
    free(found.at);
    return count;
}
