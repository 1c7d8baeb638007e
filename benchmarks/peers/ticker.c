/* Responsible for a program that says what time it is: a line every so many microseconds.
 *
 * usage: ticker COUNT MICROSECONDS      each line is the wall clock in nanoseconds, padded to 450 bytes
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 1000, pause = argc > 2 ? atol(argv[2]) : 1000;
    char line[450];
    struct timespec now, next;

    memset(line, '.', sizeof line);
    line[sizeof line - 1] = '\n';
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (long i = 0; i < count; i++) {
        clock_gettime(CLOCK_REALTIME, &now);
        int length = snprintf(line, 32, "%lld%09ld", (long long)now.tv_sec, now.tv_nsec);
        line[length] = ' ';
        if (write(1, line, sizeof line) != sizeof line)
            return 1;
        next.tv_nsec += pause * 1000;
        while (next.tv_nsec >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    return 0;
}
