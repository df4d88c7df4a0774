/* A wall clock that is off by so many seconds, as TOKENLOOM_CHAOS_CLOCK says, for processes that preload this:

       cc -shared -fPIC -O2 -o clock.so clocks.c -ldl

   Whoever asks what time it is hears it off. How long things last isn't: who waits until a moment by that clock waits
   until then by the kernel's, and monotonic clocks are left alone. What sets the time of a file is the kernel's. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#define FOUND(type, name) ((type)dlsym(RTLD_NEXT, name))

static time_t off(void) {
    static _Thread_local int asked; /* the environment may be read anew meanwhile, the answer is the same */
    static _Thread_local time_t seconds;
    if (!asked) {
        const char *text = getenv("TOKENLOOM_CHAOS_CLOCK");
        seconds = text ? atol(text) : 0;
        asked = 1;
    }
    return seconds;
}

/* A moment as the kernel has it. The monotonic clock counts from the machine's start: it is decades behind. */
static struct timespec by_kernel(const struct timespec *moment) {
    struct timespec real = *moment;
    if (real.tv_sec > 1000000000) real.tv_sec -= off();
    return real;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = FOUND(int (*)(clockid_t, struct timespec *), "clock_gettime");
    int failed = next(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += off();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    static int (*next)(struct timeval *, void *);
    if (!next) next = FOUND(int (*)(struct timeval *, void *), "gettimeofday");
    int failed = next(now, zone);
    if (!failed) now->tv_sec += off();
    return failed;
}

time_t time(time_t *also) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (also) *also = now.tv_sec;
    return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static int (*next)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!next) { /* x86-64 has an older one besides, which takes another structure */
        void *found = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
        if (!found) found = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
        next = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))found;
    }
    struct timespec real = by_kernel(until);
    return next(cond, mutex, &real);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    static int (*next)(sem_t *, const struct timespec *);
    if (!next) next = FOUND(int (*)(sem_t *, const struct timespec *), "sem_timedwait");
    struct timespec real = by_kernel(until);
    return next(semaphore, &real);
}

/* Abseil, and with it gRPC and Ray, waits by the futex itself. */
long syscall(long number, ...) {
    static long (*next)(long, ...);
    if (!next) next = FOUND(long (*)(long, ...), "syscall");
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    struct timespec real;
    if (number == SYS_futex && (b & FUTEX_CLOCK_REALTIME) && d) {
        real = by_kernel((const struct timespec *)d);
        d = (long)&real;
    }
    return next(number, a, b, c, d, e, f);
}
