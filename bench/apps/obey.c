/* Says "ready", and ends as soon as SIGTERM asks for it. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static void end(int number) {
    (void)number;
    _exit(0);
}

int main(void) {
    signal(SIGTERM, end);
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}
