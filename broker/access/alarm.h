/* The memory and the disk alarm: while either is on, whoever publishes is not read (wire-behaviour
 * 4.6).
 *
 *     source ──read──▶ readings ──compared with limits──▶ memory, disk ──on or off──▶ on_change
 *       ▲                                                     │
 *       └────── timer: 10 s, down to 0.1 s near a limit ◀─────┘
 *
 * An alarm is on while its reading is on the wrong side of its limit, at the last look. How soon
 * the next look comes depends on how far the nearer limit is: not longer than half of what it would
 * take to get there at FAST_RATE (alarm.c), whichever side it is on. The limit of the disk is there
 * so that its end is not met; where it is (a limit that is too low, a quota, another who was
 * faster) the store says so, and that is the same alarm.
 *
 * Only publishers are blocked. What consumers take and do not acknowledge is memory, too: far above
 * the limit it is *critical*, and they, too, get little.
 *
 * One per process, the loop thread's. It knows no connection: the session asks alarm_is_on at each
 * publish, and hears of the end. */
#ifndef ACCESS_ALARM_H
#define ACCESS_ALARM_H

#include "base/clock.h"
#include "base/wheel.h"

struct alarm_readings {
    uint64_t memory_used; /* octets; 0 when it cannot be known: no alarm */
    uint64_t disk_free;   /* octets; UINT64_MAX likewise */
    bool store_full;      /* the store has found no room: the disk alarm is on, whatever is free */
};

struct alarm_limits {
    uint64_t memory_max;      /* the alarm is on above it; UINT64_MAX: never */
    uint64_t memory_critical; /* not below memory_max */
    uint64_t disk_free_min;   /* the alarm is on below it; 0: never */
};

struct alarm_source { /* of readings; tests have their own */
    struct alarm_readings (*read)(void *context);
    void (*release)(void *context); /* gives back memory that is only kept, not used. May be NULL */
    void *context;
};

struct alarm {
    struct wheel *wheel; /* NULL until alarm_start */
    const struct clock *clock;
    struct timer timer; /* the next look */
    struct alarm_source source;
    void (*on_change)(struct alarm *alarm); /* limits, memory, critical or disk have changed */

    struct alarm_limits limits;
    struct alarm_readings readings; /* of the last look */
    bool memory, disk;              /* on */
    bool critical;    /* above limits.memory_critical, until it is below 7/8 of it, or memory is
                                       off */
    bool descriptors; /* likewise: see alarm_set_descriptors */
};

/* Nothing is on, ever, before alarm_start. */
void alarm_init(struct alarm *alarm, void (*on_change)(struct alarm *alarm));

/* Looks for the first time, and again and again. */
void alarm_start(struct alarm *alarm, struct wheel *wheel, const struct clock *clock,
                 const struct alarm_limits *limits, const struct alarm_source *source);
void alarm_look(struct alarm *alarm); /* once more, now */
void alarm_stop(struct alarm *alarm); /* harmless twice */

/* Gives back what is only kept, not used: takes milliseconds. */
void alarm_release_memory(struct alarm *alarm);

/* All descriptors that connections may have are in use, or enough are free again. It is shown
 * like the others, and blocks nobody: those who wait are who it holds up. */
void alarm_set_descriptors(struct alarm *alarm, bool on, size_t connections_max);

static inline bool alarm_is_on(const struct alarm *alarm)
{
    return alarm->memory || alarm->disk;
}

const char *alarm_reason(const struct alarm *alarm); /* of one that is on, for clients (4.6.2) */

#endif
