/* Moves the calendar of a process: adds the seconds in the file CLOCK_SHIFT to CLOCK_REALTIME; those in the
   file CLOCK_SLEPT to CLOCK_BOOTTIME, as if the machine had slept for so long. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long seconds_in(const char *variable) {
    const char *path = getenv(variable);
    FILE *file = path ? fopen(path, "re") : NULL;
    long seconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += seconds_in("CLOCK_SHIFT");
    }
    if (result == 0 && clock == CLOCK_BOOTTIME) now->tv_sec += seconds_in("CLOCK_SLEPT");
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec real;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &real);
    now->tv_sec = real.tv_sec;
    now->tv_usec = real.tv_nsec / 1000;
    return result;
}

time_t time(time_t *where) {
    struct timespec real;
    clock_gettime(CLOCK_REALTIME, &real);
    if (where) *where = real.tv_sec;
    return real.tv_sec;
}
