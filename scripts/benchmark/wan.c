/* Carry frames between two network namespaces over a path of a given rate, delay, queue and loss. Needs root, not netem.
 *
 *   wan [--rate MBIT] [--delay MS] [--queue PACKETS] [--loss PERCENT] [--mtu N] [--seed N] A B
 *
 * The life of a frame that one namespace sends to its TAP device wan0:
 *
 *   1. It is lost at random, independently of the others, or
 *   2. it is dropped, if as many frames as the queue holds already wait for the rate, whatever their size.
 *   3. Otherwise it waits for the frames before it, and is sent at the rate, Ethernet header included.
 *   4. After the delay it leaves the other namespace's wan0. Frames keep their order.
 *
 * Both directions use the same numbers independently. The devices are up, without addresses and without offloads: one
 * frame is one packet. The program prints "ready" once both exist. At SIGTERM or SIGINT it reports on each direction
 * and ends, and the devices disappear with it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DEVICE "wan0"
#define MOST_MTU 9100
#define MOST_FRAMES 65536 /* on the path in one direction */
#define AT_ONCE 64        /* frames read from one device in a turn */
#define PAUSE 100000      /* ns between turns that only output: frames leave in small groups, as from a network card */

typedef int64_t ns;

struct frame {
    ns start; /* leaves the queue for the wire */
    ns due;   /* leaves at the other end */
    int length;
    unsigned char *data;
};

/* A ring of frames in order. `given` <= `started` <= `taken` count the frames since the program began that have been
 * output, sent at the rate, and accepted; those from `started` to `taken` wait for the rate. */
struct direction {
    struct frame ring[MOST_FRAMES];
    uint64_t given, started, taken;
    ns free_at; /* when the last accepted frame has been sent at the rate */
    unsigned short chance[3];
    uint64_t lost, dropped;
    ns most_late;
};

static double rate = 300, delay = 10, loss; /* Mbit/s, ms, percent */
static long queue = 400, mtu = 1500, seed = 1;
static struct direction directions[2];
static volatile sig_atomic_t stopped;

static void fail(const char *what)
{
    fprintf(stderr, "wan: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static ns now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (ns)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t waiting(struct direction *d, ns at)
{
    while (d->started < d->taken && d->ring[d->started % MOST_FRAMES].start <= at)
        d->started++;
    return d->taken - d->started;
}

static void take(struct direction *d, const unsigned char *data, int length, ns at)
{
    struct frame *frame = &d->ring[d->taken % MOST_FRAMES];
    uint64_t before = waiting(d, at);

    if (erand48(d->chance) * 100 < loss) {
        d->lost++;
        return;
    }
    if ((d->free_at > at && before >= (uint64_t)queue) || d->taken - d->given == MOST_FRAMES) {
        d->dropped++;
        return;
    }
    frame->start = d->free_at > at ? d->free_at : at;
    d->free_at = frame->start + (rate > 0 ? (ns)(length * 8e3 / rate) : 0);
    frame->due = d->free_at + (ns)(delay * 1e6);
    frame->length = length;
    if (!(frame->data = malloc(length)))
        fail("no memory");
    memcpy(frame->data, data, length);
    d->taken++;
}

static void read_from(int device, struct direction *d)
{
    static unsigned char data[MOST_MTU + 18];
    int length;

    for (int i = 0; i < AT_ONCE && (length = read(device, data, sizeof data)) > 0; i++)
        take(d, data, length, now());
}

/* Output the frames that are due; return when the next one will be, or -1 if there is none. */
static ns write_to(int device, struct direction *d)
{
    ns at = now();

    waiting(d, at); /* a frame must be counted as started before it is output */
    for (; d->given < d->taken; d->given++) {
        struct frame *frame = &d->ring[d->given % MOST_FRAMES];
        if (frame->due > at)
            return frame->due;
        if (at - frame->due > d->most_late)
            d->most_late = at - frame->due;
        if (write(device, frame->data, frame->length) < 0)
            d->dropped++; /* the device is down */
        free(frame->data);
    }
    return -1;
}

static int open_tap(const char *namespace)
{
    char path[256];
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int home = open("/proc/self/ns/net", O_RDONLY), there, control, tap;

    snprintf(path, sizeof path, "/run/netns/%s", namespace);
    if ((there = open(path, O_RDONLY)) < 0 || setns(there, CLONE_NEWNET) < 0)
        fail(path);
    strcpy(request.ifr_name, DEVICE);
    if ((tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK)) < 0 || ioctl(tap, TUNSETIFF, &request) < 0)
        fail("/dev/net/tun");
    if ((control = socket(AF_INET, SOCK_DGRAM, 0)) < 0)
        fail("socket");
    request.ifr_mtu = mtu;
    if (ioctl(control, SIOCSIFMTU, &request) < 0)
        fail("mtu");
    request.ifr_qlen = 5000; /* the kernel's queue before this program must never be the full one */
    if (ioctl(control, SIOCSIFTXQLEN, &request) < 0)
        fail("txqueuelen");
    request.ifr_flags = IFF_UP;
    if (ioctl(control, SIOCSIFFLAGS, &request) < 0)
        fail("up");
    close(control);
    close(there);
    if (setns(home, CLONE_NEWNET) < 0)
        fail("setns");
    close(home);
    return tap;
}

static void carry(const int taps[2])
{
    sigset_t blocked, open;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &open); /* signals are delivered only in ppoll */
    while (!stopped) {
        struct pollfd polled[2] = {{.fd = taps[0], .events = POLLIN}, {.fd = taps[1], .events = POLLIN}};
        ns due = -1, wait;
        struct timespec timeout;

        for (int i = 0; i < 2; i++) {
            ns next = write_to(taps[!i], &directions[i]);
            if (next >= 0 && (due < 0 || next < due))
                due = next;
        }
        wait = due - now();
        if (wait < PAUSE)
            wait = PAUSE;
        timeout = (struct timespec){wait / 1000000000, wait % 1000000000};
        if (ppoll(polled, 2, due < 0 ? NULL : &timeout, &open) < 0) {
            if (errno != EINTR)
                fail("ppoll");
            continue;
        }
        for (int i = 0; i < 2; i++)
            if (polled[i].revents)
                read_from(taps[i], &directions[i]);
    }
}

static void read_options(int count, char **words)
{
    static const struct option known[] = {
        {"rate", 1, 0, 'r'}, {"delay", 1, 0, 'd'}, {"queue", 1, 0, 'q'}, {"loss", 1, 0, 'l'},
        {"mtu", 1, 0, 'm'},  {"seed", 1, 0, 's'},  {"help", 0, 0, 'h'},  {0, 0, 0, 0},
    };
    int option, wrong = 0;

    while ((option = getopt_long(count, words, "h", known, NULL)) != -1) {
        char *end = "";
        switch (option) {
        case 'r': rate = strtod(optarg, &end); break;
        case 'd': delay = strtod(optarg, &end); break;
        case 'q': queue = strtol(optarg, &end, 10); break;
        case 'l': loss = strtod(optarg, &end); break;
        case 'm': mtu = strtol(optarg, &end, 10); break;
        case 's': seed = strtol(optarg, &end, 10); break;
        default: wrong = 1;
        }
        wrong |= *end != 0;
    }
    if (!wrong && count - optind == 2 && rate >= 0 && delay >= 0 && queue >= 0 && mtu >= 68 && mtu <= MOST_MTU)
        return;
    fputs("usage: wan [options] A B\n"
          "Carry frames between a device wan0 in namespace A and one in namespace B. For each direction:\n"
          "  --rate MBIT      Mbit/s; 0 for no limit (300)\n"
          "  --delay MS       delay in one direction (10)\n"
          "  --queue PACKETS  packets that may wait for the rate, whatever their size (400)\n"
          "  --loss PERCENT   share of the frames lost at random (0)\n"
          "  --mtu N          from 68 to 9100 (1500)\n"
          "  --seed N         seed of the random losses (1)\n", stderr);
    exit(2);
}

int main(int count, char **words)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct sched_param first = {.sched_priority = 1};
    int taps[2];

    read_options(count, words);
    for (int i = 0; i < 2; i++) {
        taps[i] = open_tap(words[optind + i]);
        directions[i].chance[0] = i;
        directions[i].chance[1] = seed;
        directions[i].chance[2] = seed >> 16;
    }
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sched_setscheduler(0, SCHED_RR, &first); /* if permitted: the path itself must not be slow */
    puts("ready");
    fflush(stdout);
    carry(taps);
    for (int i = 0; i < 2; i++) {
        struct direction *d = &directions[i];
        printf("%s to %s: %llu carried, %llu lost, %llu dropped, at most %.1f ms late\n", words[optind + i],
               words[optind + !i], (unsigned long long)d->given, (unsigned long long)d->lost,
               (unsigned long long)d->dropped, d->most_late / 1e6);
    }
    return 0;
}
