/* Map a file, shared and writable, and change its first byte: once at once, then once for each line of input. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char line[16];
    int fd = argc == 2 ? open(argv[1], O_RDWR) : -1;
    char *byte = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (byte == MAP_FAILED)
        return 1;
    close(fd);
    do {
        ++*byte;
        puts("changed");
        fflush(stdout);
    } while (fgets(line, sizeof line, stdin));
    return 0;
}
