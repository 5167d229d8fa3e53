/* Fuzz how a confined path is walked: path.c, in a real directory that has links to everywhere.
 *
 * An input is up to four targets of links and then a path, 0xff between them; each byte stands for a piece of text. Promises: what
 * a path leads to is beneath the root, nothing is made elsewhere, and where the kernel finds something by the same path it is
 * the same thing. Set FUZZ_SCRATCH to a directory on a tmpfs. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "path.h"
#include "walk.h"

#define MAX_TEXT 3000
#define LINKS 4

static int scratch = -1;
static char place_of_root[4096];

static void need(bool holds, const char *promise)
{
    if (holds)
        return;
    fprintf(stderr, "broken promise: %s (%s)\n", promise, strerror(errno));
    abort();
}

static void forget_scratch(void)
{
    char *slash = strrchr(place_of_root, '/');
    *slash = 0;
    remove_tree(AT_FDCWD, place_of_root);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    const char *place = getenv("FUZZ_SCRATCH");
    umask(0);
    snprintf(place_of_root, sizeof place_of_root, "%s/paths-%d", place ? place : "/dev/shm", (int)getpid());
    need(mkdir(place_of_root, 0700) == 0 && (scratch = open(place_of_root, O_RDONLY | O_DIRECTORY)) >= 0, "a scratch directory");
    strcat(place_of_root, "/root");
    need(mkdirat(scratch, "outside", 0755) == 0 && mkdirat(scratch, "outside/d", 0755) == 0, "a place outside");
    atexit(forget_scratch);
    return 0;
}

static int make_root(void)
{
    need(mkdirat(scratch, "root", 0755) == 0, "a fresh root");
    int root = openat(scratch, "root", O_RDONLY | O_DIRECTORY);
    int file = openat(root, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    need(root >= 0 && file >= 0 && mkdirat(root, "d", 0755) == 0 && mkdirat(root, "d/e", 0755) == 0 &&
         symlinkat(place_of_root, root, "self") == 0 && symlinkat("../outside", root, "out") == 0 &&
         symlinkat("loop", root, "loop") == 0 && symlinkat("../d/e", root, "d/link") == 0, "a root with links");
    close(file);
    return root;
}

/* The text of the bytes up to 0xff; how many they were, that one included. */
static size_t spell(const uint8_t *bytes, size_t size, char text[MAX_TEXT + 1])
{
    static const char *const pieces[] = {"/", "..", ".", "d", "e", "file", "self", "out", "loop", "link", "l0", "l1", "l2", "l3",
                                         "new", "//", "/../", "outside", "root"};
    size_t count = sizeof pieces / sizeof *pieces, used = 0, at = 0;
    for (; at < size && bytes[at] != 0xff; at++) {
        char literal[2] = {(char)bytes[at], 0};
        const char *piece = bytes[at] < count ? pieces[bytes[at]] : bytes[at] == 0xfe ? place_of_root : literal;
        size_t length = strlen(piece);
        if (used + length > MAX_TEXT)
            continue;
        memcpy(text + used, piece, length);
        used += length;
    }
    text[used] = 0;
    return at < size ? at + 1 : at;
}

static bool same(const struct stat *a, const struct stat *b) { return a->st_ino == b->st_ino && a->st_dev == b->st_dev; }

static bool is_beneath(int directory, int root)
{
    struct stat top, here, above;
    int at = fcntl(directory, F_DUPFD_CLOEXEC, 3);
    bool found = false, more = fstat(root, &top) == 0;
    while (more && fstat(at, &here) == 0 && !(found = same(&here, &top))) {
        int up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = up;
        more = up >= 0 && fstat(up, &above) == 0 && !same(&above, &here);
    }
    close(at);
    return found;
}

static void check_path(int fd, const char *path, int how)
{
    struct root root;
    struct place p;
    struct stat ours, kernels;
    need(root_open(&root, place_of_root), "the root");
    bool found = locate(&root, path, how, &p);
    need(found || errno != EBADF, "no descriptor is used that is not open");
    if (found) {
        need(strlen(p.name) > 0 && !strchr(p.name, '/') && strcmp(p.name, ".."), "a name is one component");
        need(is_beneath(p.directory, fd), "a place is beneath the root");
        bool there = fstatat(p.directory, p.name, &ours, AT_SYMLINK_NOFOLLOW) == 0;
        need(!(how & PATH_FOLLOW) || !there || !S_ISLNK(ours.st_mode), "links have been followed");
        if (fstatat(fd, path, &kernels, how & PATH_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW) == 0 && path[strlen(path) - 1] != '/')
            need(there && same(&ours, &kernels), "it is what the kernel finds");
        close(p.directory);
        free(p.name);
    }
    int opened = open_path(&root, path, O_PATH | O_CLOEXEC);
    if (opened >= 0) {
        need(found || !(how & PATH_FOLLOW), "what can be opened can be located");
        close(opened);
    }
    close(root.fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static char text[MAX_TEXT + 1];
    if (!size)
        return 0;
    int root = make_root();
    int how = bytes[0] & (PATH_FOLLOW | PATH_PARENTS);
    size_t at = 1 + spell(bytes + 1, size - 1, text);
    for (int i = 0; i < LINKS && at < size; i++) {
        char name[] = {'l', (char)('0' + i), 0};
        (void)!symlinkat(text, root, name); /* one of no text, or too much of it, is not made */
        at += spell(bytes + at, size - at, text);
    }
    struct stat before, after;
    need(fstatat(scratch, "outside", &before, 0) == 0, "what is outside");
    if (*text)
        check_path(root, text, how);
    need(fstatat(scratch, "outside", &after, 0) == 0 && before.st_ctim.tv_sec == after.st_ctim.tv_sec &&
         before.st_ctim.tv_nsec == after.st_ctim.tv_nsec, "nothing was made outside");
    close(root);
    need(remove_tree(scratch, "root") > 0, "the root can be removed");
    return 0;
}
