/* ask SOCKET PER_SECOND SECONDS keep|new: health requests over a unix socket, one connection for all or one each.

   Says how many were answered with 200, and the median and the longest time of one in microseconds. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char request[] = "GET /api/health HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n\r\n";

static double now(void) {
    struct timespec moment;
    clock_gettime(CLOCK_MONOTONIC, &moment);
    return moment.tv_sec + moment.tv_nsec / 1e9;
}

static int compare(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return a < b ? -1 : a > b;
}

static int reach(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) {
        perror("connect");
        exit(1);
    }
    return fd;
}

/* The whole answer: head, and as much as its Content-Length says. */
static int ask(int fd) {
    char answer[8192];
    size_t got = 0;
    if (write(fd, request, sizeof request - 1) != sizeof request - 1)
        return 0;
    for (;;) {
        ssize_t more = read(fd, answer + got, sizeof answer - 1 - got);
        if (more <= 0)
            return 0;
        got += more;
        answer[got] = 0;
        char *body = strstr(answer, "\r\n\r\n"), *length = strstr(answer, "Content-Length: ");
        if (body && length && got >= (body + 4 - answer) + strtoul(length + 16, NULL, 10))
            return !strncmp(answer, "HTTP/1.1 200", 12);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    double per_second = atof(argv[2]), seconds = atof(argv[3]), began = now();
    int keep = !strcmp(argv[4], "keep"), fd = keep ? reach(argv[1]) : -1;
    long room = per_second * seconds, asked = 0, answered = 0;
    double *taken = malloc((room + 1) * sizeof *taken);
    while (asked < room && now() < began + seconds) {
        double due = began + asked / per_second, sent = now();
        if (due > sent) {
            struct timespec moment = {0, (due - sent) * 1e9};
            nanosleep(&moment, NULL);
            sent = now();
        }
        if (!keep)
            fd = reach(argv[1]);
        answered += ask(fd);
        if (!keep)
            close(fd);
        taken[asked++] = now() - sent;
    }
    double lasted = now() - began;
    qsort(taken, asked, sizeof *taken, compare);
    printf("%ld %ld %.0f %.0f %.0f\n", asked, answered, answered / lasted, taken[asked / 2] * 1e6, taken[asked - 1] * 1e6);
    return 0;
}
