/* delay SERVER_PORT DELAY_US: a TCP proxy that delivers everything so much later, each way, and counts.
 *
 * Says its port, and on SIGTERM "connections round-trips cpu-ms". A round trip begins with what a client sends
 * after an answer; those before the first ReadyForQuery belong to the log-in and aren't counted. In C and one
 * thread, as in Python the proxy's own CPU would be a part of what is measured. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 200, CHUNK = 1 << 16 };

struct chunk {
    struct chunk *next;
    long long due_ns;
    ssize_t length; /* 0: the end */
    char bytes[];
};
struct way {
    int from, to, ended;
    struct chunk *first, *last;
};
static struct connection {
    struct way up, down;
    int logged_in, answered;
} all[MAX_CONNECTIONS];
static int count, connections, round_trips;

static void end(int number) {
    (void)number;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    long ms = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000 + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1000;
    printf("%d %d %ld\n", connections, round_trips, ms);
    fflush(stdout);
    _exit(0);
}

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void tally(struct connection *one, int from_client, const char *bytes, ssize_t length) {
    static const char ready[] = {'Z', 0, 0, 0, 5, 'I'};
    if (!from_client) {
        one->answered = 1;
        if (!one->logged_in && length >= 6 && !memcmp(bytes + length - 6, ready, 6)) {
            one->logged_in = 1;
            connections++;
        }
    } else if (one->logged_in && one->answered && bytes[0] != 'X') {
        round_trips++;
        one->answered = 0;
    }
}

static void take(struct connection *one, struct way *way, long long delay_ns) {
    static char buffer[CHUNK];
    ssize_t length = recv(way->from, buffer, CHUNK, 0);
    if (length < 0)
        length = 0;
    struct chunk *taken = malloc(sizeof *taken + length);
    taken->next = NULL;
    taken->due_ns = now_ns() + delay_ns;
    taken->length = length;
    memcpy(taken->bytes, buffer, length);
    if (length)
        tally(one, way == &one->up, buffer, length);
    else
        way->ended = 1;
    if (way->first)
        way->last->next = taken;
    else
        way->first = taken;
    way->last = taken;
}

/* Deliver what is due; when the next is, or -1. */
static long long deliver(struct way *way) {
    while (way->first) {
        struct chunk *one = way->first;
        if (one->due_ns > now_ns())
            return one->due_ns;
        for (ssize_t done = 0, sent; done < one->length; done += sent)
            if ((sent = send(way->to, one->bytes + done, one->length - done, MSG_NOSIGNAL)) < 0)
                break;
        if (!one->length)
            shutdown(way->to, SHUT_WR);
        way->first = one->next;
        free(one);
    }
    return -1;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    long long delay_ns = atoll(argv[2]) * 1000;
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))}, mine = server;
    server.sin_addr.s_addr = mine.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    mine.sin_port = 0;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = sizeof mine;
    if (bind(listener, (struct sockaddr *)&mine, size) || listen(listener, 64))
        return 1;
    getsockname(listener, (struct sockaddr *)&mine, &size);
    prctl(PR_SET_TIMERSLACK, 1);
    signal(SIGTERM, end);
    printf("%d\n", ntohs(mine.sin_port));
    fflush(stdout);
    for (;;) {
        for (int i = 0; i < count; i++)
            if (all[i].up.ended && all[i].down.ended && !all[i].up.first && !all[i].down.first) {
                close(all[i].up.from);
                close(all[i].up.to);
                all[i--] = all[--count];
            }
        struct pollfd polled[1 + 2 * MAX_CONNECTIONS] = {{.fd = listener, .events = POLLIN}};
        long long next_ns = -1;
        for (int i = 0; i < 2 * count; i++) {
            struct way *way = i % 2 ? &all[i / 2].down : &all[i / 2].up;
            long long due_ns = deliver(way);
            if (due_ns >= 0 && (next_ns < 0 || due_ns < next_ns))
                next_ns = due_ns;
            polled[1 + i] = (struct pollfd){.fd = way->ended ? -1 : way->from, .events = POLLIN};
        }
        long long wait_ns = next_ns < 0 ? 0 : next_ns - now_ns();
        struct timespec wait = {wait_ns > 0 ? wait_ns / 1000000000 : 0, wait_ns > 0 ? wait_ns % 1000000000 : 0};
        if (ppoll(polled, 1 + 2 * count, next_ns < 0 ? NULL : &wait, NULL) < 0)
            continue;
        for (int i = 0; i < 2 * count; i++)
            if (polled[1 + i].revents)
                take(&all[i / 2], i % 2 ? &all[i / 2].down : &all[i / 2].up, delay_ns);
        if (polled[0].revents && count < MAX_CONNECTIONS) {
            int client = no_delay(accept(listener, NULL, NULL));
            int far = no_delay(socket(AF_INET, SOCK_STREAM, 0));
            if (connect(far, (struct sockaddr *)&server, sizeof server))
                return 1;
            all[count++] = (struct connection){.up = {.from = client, .to = far}, .down = {.from = far, .to = client}};
        }
    }
}
