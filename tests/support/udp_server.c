/* Answer each datagram that comes to a port of the loopback interface, in capitals. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, sender;
    int server = socket(AF_INET, SOCK_DGRAM, 0);
    own.sin_port = htons(argc == 2 ? (unsigned short)atoi(argv[1]) : 0);
    if (bind(server, (struct sockaddr *)&own, sizeof own))
        return 1;
    puts("bound");
    fflush(stdout);
    for (;;) {
        char datagram[65536];
        socklen_t size = sizeof sender;
        ssize_t length = recvfrom(server, datagram, sizeof datagram, 0, (struct sockaddr *)&sender, &size);
        for (ssize_t i = 0; i < length; i++)
            datagram[i] = (char)toupper((unsigned char)datagram[i]);
        if (length < 0 || sendto(server, datagram, (size_t)length, 0, (struct sockaddr *)&sender, size) != length)
            return 1;
    }
}
