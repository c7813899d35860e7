/* flood PID NUMBER COUNT queue|kill|ack [TERM_AFTER]: sends a signal so often, as fast as the kernel takes it.

   queue: sigqueue(3), which says EAGAIN where RLIMIT_SIGPENDING leaves no room; then again.
   kill: kill(2); the kernel merges one that is pending already.
   ack: kill(2), each one only when the one before has been acknowledged by a byte on standard input.
   TERM_AFTER: one SIGTERM after so many. Says how long it took, in ms. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    pid_t pid = atoi(argv[1]);
    int number = atoi(argv[2]), queued = !strcmp(argv[4], "queue"), acknowledged = !strcmp(argv[4], "ack");
    long count = atol(argv[3]), term_after = argc > 5 ? atol(argv[5]) : -1, again = 0;
    union sigval value = {0};
    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (long sent = 0; sent < count; sent++) {
        if (sent == term_after && kill(pid, SIGTERM))
            return perror("kill"), 1;
        while (queued ? sigqueue(pid, number, value) : kill(pid, number)) {
            if (errno == ESRCH)
                goto over; /* it has ended, as asked */
            if (errno != EAGAIN)
                return perror("send"), 1;
            again++;
            sched_yield();
        }
        char byte;
        struct pollfd told = {.fd = 0, .events = POLLIN};
        if (acknowledged && (poll(&told, 1, 5000) != 1 || read(0, &byte, 1) != 1))
            return fprintf(stderr, "number %ld was lost\n", sent + 1), 1;
    }
over:
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%.0f %ld\n", (ended.tv_sec - began.tv_sec) * 1e3 + (ended.tv_nsec - began.tv_nsec) / 1e6, again);
    return 0;
}
