/* probe SECONDS: an app that answers requests of its own: every millisecond a piece of work of some 100 us.

   Says how many it did, and the median, the 99th percentile and the longest time from due to done in
   microseconds; once for every line that it reads, and ends with its input. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec moment;
    clock_gettime(CLOCK_MONOTONIC, &moment);
    return moment.tv_sec + moment.tv_nsec / 1e9;
}

static int compare(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return a < b ? -1 : a > b;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    long room = seconds * 1000;
    double *taken = malloc(room * sizeof *taken);
    char line[64];
    volatile unsigned long hash = 1;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        double began = now();
        long done = 0;
        for (long number = 0; number < room; number++) {
            double due = began + number / 1000.0, wait = due - now();
            if (wait > 0) {
                struct timespec moment = {0, wait * 1e9};
                nanosleep(&moment, NULL);
            }
            for (int step = 0; step < 50000; step++)
                hash = hash * 31 + step;
            taken[number] = now() - due;
            done++;
        }
        double lasted = now() - began;
        qsort(taken, done, sizeof *taken, compare);
        printf("%.0f %.0f %.0f %.0f\n", done / lasted, taken[done / 2] * 1e6, taken[done * 99 / 100] * 1e6,
               taken[done - 1] * 1e6);
        fflush(stdout);
    }
    return 0;
}
