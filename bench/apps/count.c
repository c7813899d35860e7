/* count [ack]: counts every signal that it gets; SIGTERM makes it say "NUMBER COUNT" for each and end.

   ack: says so much as a dot at once for each but SIGTERM. */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long counts[65];
static volatile sig_atomic_t acknowledges, ends;

static void note(int number) {
    counts[number]++;
    if (number == SIGTERM)
        ends = 1;
    else if (acknowledges && write(1, ".", 1) != 1)
        _exit(1);
}

int main(int argc, char **argv) {
    (void)argv;
    acknowledges = argc > 1;
    struct sigaction action = {.sa_handler = note};
    sigset_t all, none;
    sigfillset(&action.sa_mask);
    for (int number = 1; number < 65; number++)
        sigaction(number, &action, NULL); /* fails for some: KILL, STOP, those of libc */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    sigemptyset(&none);
    puts("ready");
    fflush(stdout);
    while (!ends)
        sigsuspend(&none);
    /* What the supervisor still had in hand when it passed SIGTERM on: signals of other numbers have no order. */
    for (unsigned long before = 0, now = 1; before != now;) {
        struct timespec moment = {0, 300000000};
        before = now;
        nanosleep(&moment, NULL);
        sigprocmask(SIG_SETMASK, &none, NULL);
        sigprocmask(SIG_SETMASK, &all, NULL);
        now = 1;
        for (int number = 1; number < 65; number++)
            now += counts[number];
    }
    for (int number = 1; number < 65; number++)
        if (counts[number])
            printf("%d %lu\n", number, counts[number]);
    return 0;
}
