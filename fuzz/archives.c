/* Fuzz what takes archives: tar.c's reader, and extract.c into a real directory that is hostile already.
 *
 * Two promises are checked beside the sanitizers' own: nothing outside the root is touched, and a tree that took an archive
 * whole takes it again. Set FUZZ_SCRATCH to a directory on a tmpfs. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "extract.c" /* as a whole: a worker ends without freeing, a fuzzer can't */

#define MAX_SPREAD (1u << 20) /* bytes of a member that are written: more costs time and finds nothing */

size_t LLVMFuzzerMutate(uint8_t *bytes, size_t size, size_t room);
static const uint8_t *archive;
static size_t archive_left;
static int scratch = -1, outside;

static size_t from_memory(void *bytes, size_t room)
{
    size_t n = room < archive_left ? room : archive_left;
    n = n > 700 ? 700 : n; /* headers and data are cut anywhere, as by a pipe */
    memcpy(bytes, archive, n);
    archive += n;
    archive_left -= n;
    return n;
}

static void need(bool holds, const char *promise)
{
    if (holds)
        return;
    fprintf(stderr, "broken promise: %s (%s)\n", promise, strerror(errno));
    abort();
}

/* `outside/` holds one file; `root/` has links to both, where a careless extraction would follow them. */
static void prepare(void)
{
    const char *place = getenv("FUZZ_SCRATCH");
    char path[4096];
    snprintf(path, sizeof path, "%s/extract-%d", place ? place : "/dev/shm", (int)getpid());
    need(mkdir(path, 0700) == 0 && (scratch = open(path, O_RDONLY | O_DIRECTORY)) >= 0, "a scratch directory");
    need(mkdirat(scratch, "outside", 0755) == 0, "a place outside");
    outside = openat(scratch, "outside", O_RDONLY | O_DIRECTORY);
    int file = openat(outside, "file", O_WRONLY | O_CREAT, 0644);
    need(outside >= 0 && file >= 0 && write(file, "mine", 4) == 4 && fsync(file) == 0, "a file outside");
    close(file);
}

static void forget_scratch(void)
{
    char path[64], place[4096];
    snprintf(path, sizeof path, "/proc/self/fd/%d", scratch);
    ssize_t n = readlink(path, place, sizeof place - 1);
    if (scratch < 0 || n <= 0)
        return;
    place[n] = 0;
    remove_tree(AT_FDCWD, place);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    umask(0);
    prepare();
    atexit(forget_scratch);
    return 0;
}

static void make_root(void)
{
    need(mkdirat(scratch, "root", 0755) == 0, "a fresh root");
    int root = openat(scratch, "root", O_RDONLY | O_DIRECTORY);
    need(symlinkat("../outside", root, "link") == 0 && symlinkat("../outside/file", root, "b") == 0 &&
         linkat(outside, "file", root, "hard", 0) == 0 && mkdirat(root, "d", 0) == 0, "a hostile root");
    int below = openat(root, "d", O_RDONLY | O_DIRECTORY);
    need(below >= 0 && symlinkat("../../outside", below, "sub") == 0 && mkdirat(below, "full", 0755) == 0 &&
         mkdirat(below, "full/er", 0755) == 0, "a hostile root");
    close(below);
    close(root);
}

static void check_outside(const struct stat *before, const struct stat *file_before)
{
    struct stat now, file;
    char content[8];
    int fd = openat(outside, "file", O_RDONLY | O_NOFOLLOW);
    need(fd >= 0 && fstat(fd, &file) == 0 && fstat(outside, &now) == 0, "the file outside is there");
    need(read(fd, content, sizeof content) == 4 && !memcmp(content, "mine", 4), "its content is the same");
    need(file.st_mode == file_before->st_mode && file.st_uid == file_before->st_uid && file.st_gid == file_before->st_gid &&
         file.st_mtim.tv_sec == file_before->st_mtim.tv_sec && file.st_mtim.tv_nsec == file_before->st_mtim.tv_nsec,
         "its mode, owner and time are the same");
    need(now.st_ctim.tv_sec == before->st_ctim.tv_sec && now.st_ctim.tv_nsec == before->st_ctim.tv_nsec,
         "nothing was made outside");
    close(fd);
}

static void extraction_free(struct extraction *x)
{
    while (x->depth)
        free_directory(&x->stack[--x->depth]);
    close(x->root);
    close(x->at);
    free(x->path);
    free(x->last);
    free(x->stack);
}

/* The way of hydrate(): true if the archive was taken whole. */
static bool take(const uint8_t *bytes, size_t size, bool merge, bool rewrite)
{
    struct extraction x;
    struct tar_input in;
    struct member m = {0};
    archive = bytes;
    archive_left = size;
    extraction_begin(&x, openat(scratch, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC), merge, merge);
    x.rewrite = rewrite;
    tar_begin(&in, from_memory);
    int more, result = 0;
    while (!result && (more = tar_next(&in, &m)) > 0)
        result = m.size > MAX_SPREAD && !m.sparse ? -1 : extract(&x, &in, &m);
    bool whole = !result && !more && tar_ends_here(&in) && !extraction_end(&x);
    extraction_free(&x);
    free(m.xattrs);
    free(in.buffer);
    free(in.records.bytes);
    return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (!size)
        return 0;
    make_root();
    struct stat before, file_before;
    need(fstat(outside, &before) == 0 && fstatat(outside, "file", &file_before, 0) == 0, "what is outside");
    bool merge = bytes[0] & 1, rewrite = bytes[0] & 2;
    if (take(bytes + 1, size - 1, merge, rewrite))
        need(take(bytes + 1, size - 1, merge, rewrite), "an archive that was taken is taken again");
    check_outside(&before, &file_before);
    need(remove_tree(scratch, "root") > 0, "the root can be removed");
    return 0;
}

/* A header's checksum would stop nearly every mutation at the door. */
static void mend_headers(uint8_t *bytes, size_t size)
{
    for (uint8_t *block = bytes; size >= BLOCK; block += BLOCK, size -= BLOCK) {
        if (memcmp(block + 257, "ustar", 5))
            continue;
        uint32_t sum = 8 * ' ';
        for (size_t i = 0; i < BLOCK; i++)
            sum += i >= 148 && i < 156 ? 0 : block[i];
        char text[16];
        snprintf(text, sizeof text, "%06o", sum);
        memcpy(block + 148, text, 7);
        block[155] = ' ';
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t room, unsigned seed)
{
    (void)seed;
    size = LLVMFuzzerMutate(bytes, size, room);
    if (size > 1)
        mend_headers(bytes + 1, size - 1);
    return size;
}
