#include "access/alarm.h"

#include "base/log.h"

enum { LOOK_MIN_MS = 100, LOOK_MAX_MS = 10000, READING_SIZE = 128 };

/* Octets in a millisecond: as fast as memory or disk may fill. */
#define FAST_RATE (UINT64_C(1) << 20)

static uint64_t distance(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

static uint64_t wait_ms(const struct alarm *alarm)
{
    const uint64_t memory =
        min_of(distance(alarm->readings.memory_used, alarm->limits.memory_max),
               distance(alarm->readings.memory_used, alarm->limits.memory_critical));
    const uint64_t disk = distance(alarm->readings.disk_free, alarm->limits.disk_free_min);
    const uint64_t ms = min_of(memory, disk) / FAST_RATE / 2;

    return ms < LOOK_MIN_MS ? LOOK_MIN_MS : min_of(ms, (uint64_t)LOOK_MAX_MS);
}

static double in_mib(uint64_t octets)
{
    return (double)octets / (1024.0 * 1024.0);
}

/* One that stays as it is is not told again. */
static void set(bool *alarm, bool on, const char *resource, const char *reading)
{
    if (*alarm == on)
        return;
    *alarm = on;
    log_at(on ? LOG_WARNING : LOG_INFO, "%s resource limit alarm %s: %s%s", resource,
           on ? "set" : "cleared", reading,
           on ? "; publishers are blocked until this alarm clears" : "");
}

static void set_memory(struct alarm *alarm, bool on)
{
    char reading[READING_SIZE];

    snprintf(reading, sizeof(reading), "%.1f MiB used, %.1f MiB allowed",
             in_mib(alarm->readings.memory_used), in_mib(alarm->limits.memory_max));
    set(&alarm->memory, on, "memory", reading);
}

static void set_disk(struct alarm *alarm, bool on)
{
    char reading[READING_SIZE];

    snprintf(reading, sizeof(reading), "%.1f MiB free, %.1f MiB wanted%s",
             in_mib(alarm->readings.disk_free), in_mib(alarm->limits.disk_free_min),
             alarm->readings.store_full ? ", and the store has no room" : "");
    set(&alarm->disk, on, "disk", reading);
}

void alarm_set_descriptors(struct alarm *alarm, bool on, size_t connections_max)
{
    if (alarm->descriptors == on)
        return;
    alarm->descriptors = on;
    log_at(on ? LOG_WARNING : LOG_INFO,
           "file descriptor limit alarm %s: %zu connections are as many as there may be%s",
           on ? "set" : "cleared", connections_max,
           on ? "; no more are accepted until one ends, or the limit of open files is raised" : "");
}

void alarm_release_memory(struct alarm *alarm)
{
    if (alarm->source.release != NULL)
        alarm->source.release(alarm->source.context);
}

/* Whether memory is used above the limit, and not only kept. */
static bool is_low_on_memory(struct alarm *alarm)
{
    if (alarm->readings.memory_used > alarm->limits.memory_max) {
        alarm_release_memory(alarm);
        alarm->readings = alarm->source.read(alarm->source.context);
    }
    return alarm->readings.memory_used > alarm->limits.memory_max;
}

/* With some distance, so that it is not on and off at each look. */
static bool is_critical(const struct alarm *alarm)
{
    const uint64_t mark = alarm->limits.memory_critical;

    return alarm->memory && alarm->readings.memory_used > (alarm->critical ? mark / 8 * 7 : mark);
}

static void set_critical(struct alarm *alarm, bool on)
{
    if (alarm->critical == on)
        return;
    alarm->critical = on;
    log_at(on ? LOG_WARNING : LOG_INFO, "memory is %s: %.1f MiB used, critical above %.1f MiB%s",
           on ? "critical" : "not critical any more", in_mib(alarm->readings.memory_used),
           in_mib(alarm->limits.memory_critical),
           on ? "; consumers that do not acknowledge get little" : "");
}

/* Answers whether anything has changed. */
static bool look(struct alarm *alarm)
{
    const bool memory = alarm->memory, critical = alarm->critical, disk = alarm->disk;

    alarm->readings = alarm->source.read(alarm->source.context);
    set_memory(alarm, is_low_on_memory(alarm));
    set_critical(alarm, is_critical(alarm));
    set_disk(alarm,
             alarm->readings.store_full || alarm->readings.disk_free < alarm->limits.disk_free_min);
    timer_set(alarm->wheel, &alarm->timer, alarm->clock->now_ms + wait_ms(alarm));
    return alarm->memory != memory || alarm->critical != critical || alarm->disk != disk;
}

void alarm_look(struct alarm *alarm)
{
    if (look(alarm))
        alarm->on_change(alarm);
}

static void on_timer(struct timer *timer)
{
    alarm_look(container_of(timer, struct alarm, timer));
}

void alarm_init(struct alarm *alarm, void (*on_change)(struct alarm *alarm))
{
    *alarm = (struct alarm){
        .timer.on_expire = on_timer,
        .on_change = on_change,
        .limits = {.memory_max = UINT64_MAX, .memory_critical = UINT64_MAX},
        .readings.disk_free = UINT64_MAX,
    };
}

void alarm_start(struct alarm *alarm, struct wheel *wheel, const struct clock *clock,
                 const struct alarm_limits *limits, const struct alarm_source *source)
{
    alarm->wheel = wheel;
    alarm->clock = clock;
    alarm->limits = *limits;
    alarm->source = *source;
    look(alarm);
    alarm->on_change(alarm);
}

void alarm_stop(struct alarm *alarm)
{
    timer_cancel(&alarm->timer);
}

const char *alarm_reason(const struct alarm *alarm)
{
    assert(alarm_is_on(alarm));
    if (!alarm->disk)
        return "low on memory";
    return alarm->memory ? "low on memory & disk" : "low on disk";
}
