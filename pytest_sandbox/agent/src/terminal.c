#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#ifndef TIOCGPTPEER /* Linux 4.13 */
#define TIOCGPTPEER 0x5441
#endif

static bool unlock(int ends[2], uint16_t rows, uint16_t columns)
{
    int locked = 0;
    /* Not by its name in /dev/pts, which may be mounted elsewhere, or have been replaced. */
    if (ioctl(ends[0], TIOCSPTLCK, &locked) || (ends[1] = ioctl(ends[0], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
        return false;
    struct termios modes;
    if (tcgetattr(ends[1], &modes) == 0) {
        modes.c_iflag |= IUTF8; /* or erasing a character of two bytes would leave one */
        tcsetattr(ends[1], TCSANOW, &modes);
    }
    resize_terminal(ends[0], rows, columns);
    return true;
}

bool open_terminal(int ends[2], uint16_t rows, uint16_t columns)
{
    ends[1] = -1;
    ends[0] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (ends[0] < 0)
        return false;
    if (unlock(ends, rows, columns))
        return true;
    int error = errno;
    close(ends[0]);
    ends[0] = -1;
    errno = error;
    return false;
}

void resize_terminal(int fd, uint16_t rows, uint16_t columns)
{
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    ioctl(fd, TIOCSWINSZ, &size);
}

int control_terminal(uid_t owner)
{
    (void)!fchown(STDIN_FILENO, owner, (gid_t)-1); /* for programs that open it by name; one's own without privilege */
    return ioctl(STDIN_FILENO, TIOCSCTTY, 0);
}
