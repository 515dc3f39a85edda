/* What the control socket alone offers: is it there, how is it, how is it configured, back it up,
 * what is in its quarantine, stop. */
#include <time.h>
#include <unistd.h>

#include "manage/api.h"

#include "access/resources.h"
#include "base/alloc.h"
#include "session/service.h"

void api_control_ping(struct manage_request *request)
{
    manage_answer(request, HTTP_NOCONTENT, NULL, 0);
}

/* Resident octets; 0 when the kernel does not say. */
static uint64_t resident_size(void)
{
    uint64_t total, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    if (file == NULL)
        return 0;
    if (fscanf(file, "%" SCNu64 " %" SCNu64, &total, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static json_t *memory(const struct alarm *alarm)
{
    json_t *object = json_object();

    json_put_number(object, "rss", resident_size());
    json_put_number(object, "used", alarm->readings.memory_used);
    return object;
}

static void put_alarms(json_t *object, const struct alarm *alarm)
{
    json_t *list = json_array();

    if (alarm->memory)
        json_array_append_new(list, json_string("memory"));
    if (alarm->disk)
        json_array_append_new(list, json_string("disk"));
    if (alarm->descriptors)
        json_array_append_new(list, json_string("file_descriptor_limit"));
    json_put(object, "alarms", list);
    json_put_number(object, "vm_memory_high_watermark_limit", alarm->limits.memory_max);
    json_put_number(object, "disk_free", alarm->readings.disk_free);
    json_put_number(object, "disk_free_limit", alarm->limits.disk_free_min);
}

static json_t *file_descriptors(void)
{
    json_t *object = json_object();

    json_put_number(object, "used", resources_descriptors_used());
    json_put_number(object, "limit", resources_descriptors_max());
    return object;
}

static json_t *verification(const struct store *store)
{
    struct store_check check;
    json_t *object = json_object();

    store_get_check(store, &check);
    json_put_bool(object, "done", check.is_done);
    if (check.is_done) {
        json_put_number(object, "messages", check.entries);
        json_put_number(object, "body_bytes", check.body_bytes);
        json_put_number(object, "findings", check.findings);
        json_put_number(object, "duration_ms", check.duration_ns / 1000000);
    }
    return object;
}

/* As RFC 3339 has it, in UTC. */
static void put_time(json_t *object, const char *name, uint64_t wall_ms)
{
    const time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    char text[32];

    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
    json_put_string(object, name, text);
}

/* Of this start; null: there was none. */
static json_t *salvage(const struct store_salvage *salvage)
{
    if (salvage->when_ms == 0)
        return json_null();
    json_t *object = json_object();
    put_time(object, "time", salvage->when_ms);
    json_put_string(object, "damaged_file", salvage->kept);
    json_put_number(object, "messages", salvage->messages);
    json_put_number(object, "queues", salvage->queues);
    json_put_number(object, "unreadable", salvage->lost);
    return object;
}

static json_t *store(const struct broker *broker)
{
    struct store_stats stats;
    json_t *object = json_object();

    store_get_stats(broker->store, &stats);
    json_put_bool(object, "failed", broker->store_error != 0);
    json_put_number(object, "commits", stats.commits);
    json_put_number(object, "bytes_written", stats.bytes_written);
    json_put_number(object, "entries_put", stats.entries_put);
    json_put_number(object, "entries_deleted", stats.entries_deleted);
    json_put_number(object, "entries_taken_back", stats.entries_taken_back);
    json_put_number(object, "damaged", stats.damaged);
    json_put_number(object, "set_aside", broker->counters.set_aside);
    json_put_number(object, "quarantined", broker->quarantine.items.count);
    json_put_number(object, "commit_ns_last", stats.commit_ns_last);
    json_put_number(object, "commit_ns_max", stats.commit_ns_max);
    json_put(object, "verification", verification(broker->store));
    json_put(object, "salvage", salvage(store_get_salvage(broker->store)));
    return object;
}

void api_control_status(struct manage_request *request)
{
    const struct manage *manage = request->manage;
    const struct broker *broker = manage->options.broker;
    const struct alarm *alarm = &manage->options.service->alarm;
    json_t *status = json_object();

    json_put_number(status, "pid", (uint64_t)getpid());
    json_put_number(status, "uptime_ms", broker->clock->now_ms - manage->started_ms);
    json_put_string(status, "product_name", "StoatMQ");
    json_put_string(status, "product_version", STOATMQ_VERSION);
    json_put_string(status, "rabbitmq_version", API_RABBITMQ_VERSION);
    json_put_string(status, "node", manage->node);
    json_put_string(status, "data_directory", manage->options.data_dir);
    json_put(status, "memory", memory(alarm));
    put_alarms(status, alarm);
    json_put(status, "file_descriptors", file_descriptors());
    json_put(status, "totals", api_object_totals(manage));
    json_put(status, "listeners", api_listeners(manage));
    json_put(status, "store", store(broker));
    json_put_number(status, "logins", broker->counters.logins);
    json_put_number(status, "logins_refused", broker->counters.logins_refused);
    manage_answer(request, HTTP_OK, status, 0);
}

static void put_setting(void *to, const char *key, const char *value)
{
    json_put_slice(to, key, slice_of_string(value));
}

void api_control_environment(struct manage_request *request)
{
    const struct manage_options *options = &request->manage->options;
    json_t *settings = json_object();

    options->each_setting(options->context, put_setting, settings);
    manage_answer(request, HTTP_OK, settings, 0);
}

/* Accepted, not done: whoever wants to know when it is done waits for the process to end. */
void api_control_stop(struct manage_request *request)
{
    const struct manage_options *options = &request->manage->options;

    options->on_stop(options->context);
    manage_answer(request, 202, NULL, 0);
}

static char *backup_path(const struct manage_options *options)
{
    return xasprintf("%s/backup.mdb", options->data_dir);
}

void api_control_begin(const struct manage_options *options)
{
    char *path = backup_path(options);

    store_remove_backup(path);
    free(path);
}

/* Into the data directory, outside of which a broker writes nothing: whoever asked takes it from
 * there. Accepted, not done: how it goes is for GET to ask. */
void api_control_backup(struct manage_request *request)
{
    const struct manage_options *options = &request->manage->options;
    char *path = backup_path(options);
    const int rc = store_backup(options->broker->store, path);

    free(path);
    if (rc == -EBUSY)
        manage_refuse(request, HTTP_BADREQUEST, "bad_request", "a backup is under way already");
    else if (rc != 0)
        manage_refuse(request, HTTP_BADREQUEST, "bad_request", strerror(-rc));
    else
        manage_answer(request, 202, NULL, 0);
}

void api_control_backup_state(struct manage_request *request)
{
    struct store_backup backup;
    json_t *object = json_object();

    store_get_backup(request->manage->options.broker->store, &backup);
    json_put(object, "file",
             backup.path == NULL ? json_null() : json_string(strrchr(backup.path, '/') + 1));
    json_put_bool(object, "running", backup.is_running);
    json_put_number(object, "size", backup.size);
    json_put(object, "error", backup.error == 0 ? json_null() : json_string(backup.sentence));
    manage_answer(request, HTTP_OK, object, 0);
}

void api_control_quarantine(struct manage_request *request)
{
    const struct quarantine *quarantine = &request->manage->options.broker->quarantine;
    json_t *list = json_array();

    for (uint32_t i = 0; i < quarantine->items.count; i++) {
        const struct quarantined *item = &quarantine->items.items[i];
        json_t *object = json_object();
        json_put_slice(object, "vhost", item->vhost);
        json_put_slice(object, "queue", item->queue);
        put_time(object, "time", item->when_ms);
        json_put_number(object, "size", item->size);
        json_put_number(object, "queue_id", item->queue_id);
        json_put_number(object, "position", item->position);
        json_array_append_new(list, object);
    }
    manage_answer(request, HTTP_OK, list, 0);
}

void api_control_quarantine_clear(struct manage_request *request)
{
    const uint64_t lsn = quarantine_clear(&request->manage->options.broker->quarantine);

    manage_answer(request, HTTP_NOCONTENT, NULL, lsn);
}
