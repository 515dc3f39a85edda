/* See disk.h. */
#include "tests/states/disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

enum { SECTOR = 512 };

void disk_init(struct disk *disk, const struct call_log *log)
{
    *disk = (struct disk){.log = log};
}

void disk_release(struct disk *disk)
{
    for (size_t i = 0; i < DISK_FILES_MAX; i++)
        free(disk->files[i].bytes);
    array_release(&disk->pending);
    array_release(&disk->naming);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static void reserve(struct disk_file *file, size_t size)
{
    if (size > file->capacity) {
        file->capacity = max_of(size, file->capacity * 2);
        file->bytes = xrealloc(file->bytes, file->capacity, 1);
    }
}

static void grow(struct disk_file *file, size_t size)
{
    reserve(file, size);
    if (size > file->size) {
        memset(file->bytes + file->size, 0, size - file->size);
        file->size = size;
    }
}

static void put(struct disk_file *file, uint64_t offset, const uint8_t *bytes, size_t size)
{
    if (size == 0)
        return;
    grow(file, offset);
    reserve(file, offset + size);
    memcpy(file->bytes + offset, bytes, size);
    file->size = max_of(file->size, offset + size);
}

static void put_call(struct disk_file *file, const struct call *call)
{
    if (call->kind == CALL_WRITE) {
        put(file, call->offset, call->bytes, call->size);
    } else {
        grow(file, call->offset);
        file->size = call->offset;
    }
}

/* Each sector that the write touches is there or not; or those up to one are, or those from one
 * on. */
static void put_torn(struct disk_file *file, const struct call *call, struct random *random)
{
    const uint64_t first = call->offset / SECTOR, last = (call->offset + call->size - 1) / SECTOR;
    const uint64_t way = random_below(random, 3),
                   cut = first + random_below(random, last - first + 1);

    for (uint64_t sector = first; sector <= last; sector++) {
        const uint64_t from = max_of(sector * SECTOR, call->offset);
        const uint64_t end = min_of((sector + 1) * SECTOR, call->offset + call->size);
        const bool there = way == 0   ? random_below(random, 2) == 0
                           : way == 1 ? sector < cut
                                      : sector > cut;
        if (there)
            put(file, from, call->bytes + (from - call->offset), end - from);
    }
}

/* ---- names ----------------------------------------------------------------------------------- */

static struct disk_name *find_name(struct disk_name *names, const char *name)
{
    for (size_t i = 0; i < DISK_NAMES_MAX; i++)
        if (strcmp(names[i].name, name) == 0)
            return &names[i];
    return NULL;
}

static void set_name(struct disk_name *names, const char *name, uint32_t file)
{
    struct disk_name *place = find_name(names, name);

    if (place == NULL)
        place = find_name(names, "");
    assert(place != NULL);
    *place = (struct disk_name){.file = file};
    strcpy(place->name, name);
}

static void put_naming(struct disk_name *names, const struct call *call)
{
    struct disk_name *old = call->kind == CALL_CREATE ? NULL : find_name(names, call->name);
    const uint32_t file = old != NULL ? old->file : call->file;

    if (old != NULL)
        old->name[0] = '\0';
    if (call->kind == CALL_CREATE)
        set_name(names, call->name, file);
    else if (call->kind == CALL_RENAME && old != NULL)
        set_name(names, call->to, file);
}

/* ---- going on -------------------------------------------------------------------------------- */

/* All that is pending for one file is durable now. */
static void settle(struct disk *disk, uint32_t file)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < disk->pending.count; i++) {
        const struct disk_pending pending = disk->pending.items[i];
        if (pending.call->file == file)
            put_call(&disk->files[file], pending.call);
        else
            disk->pending.items[kept++] = pending;
    }
    disk->pending.count = kept;
}

static void force(struct disk *disk, const struct call *call)
{
    for (uint32_t i = 0; i < disk->pending.count; i++)
        if (disk->pending.items[i].call == call)
            disk->pending.items[i].forced = true;
}

void disk_apply(struct disk *disk, const struct call *call)
{
    switch (call->kind) {
    case CALL_WRITE:
    case CALL_TRUNCATE:
        *array_add(&disk->pending) = (struct disk_pending){.call = call};
        break;
    case CALL_THROUGH:
        force(disk, &disk->log->calls.items[call->offset]);
        break;
    case CALL_SYNC:
        settle(disk, call->file);
        break;
    case CALL_CREATE:
    case CALL_RENAME:
    case CALL_UNLINK:
        *array_add(&disk->naming) = call;
        break;
    case CALL_SYNC_NAMES:
        for (uint32_t i = 0; i < disk->naming.count; i++)
            put_naming(disk->names, disk->naming.items[i]);
        disk->naming.count = 0;
        break;
    case CALL_SUBMITTED:
        disk->submitted = call->offset;
        break;
    case CALL_DURABLE:
        disk->durable = call->offset;
        break;
    }
}

uint32_t disk_choices(const struct disk *disk)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < disk->pending.count; i++)
        count += !disk->pending.items[i].forced;
    return count;
}

/* ---- a state --------------------------------------------------------------------------------- */

static void compose(const struct disk *disk, uint32_t number, struct random *random,
                    struct disk_file *file)
{
    const bool grown = random_below(random, 4) == 0;

    file->size = 0;
    put(file, 0, disk->files[number].bytes, disk->files[number].size);
    for (uint32_t i = 0; i < disk->pending.count; i++) {
        const struct disk_pending *pending = &disk->pending.items[i];
        if (pending->call->file != number)
            continue;
        if (grown && pending->call->kind == CALL_WRITE)
            grow(file, pending->call->offset + pending->call->size);
        if (pending->forced || pending->fate == FATE_WRITTEN)
            put_call(file, pending->call);
        else if (pending->fate == FATE_TORN && pending->call->size > 0)
            put_torn(file, pending->call, random);
    }
}

static void write_file(const char *directory, const char *name, const struct disk_file *file)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", directory, name);
    char *slash = path + strlen(directory);
    while ((slash = strchr(slash + 1, '/')) != NULL) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    const ssize_t size = fd >= 0 ? pwrite(fd, file->bytes, file->size, 0) : -1;
    assert(size == (ssize_t)file->size);
    close(fd);
}

/* Whatever is left of the lock file beside the store must not matter. Alone it never is: it is made
 * when data.mdb is durable, and tells that somebody has taken that away. */
static void write_lock_file(const char *directory, struct random *random)
{
    uint8_t bytes[8192] = {0};
    const uint64_t kind = random_below(random, 3);

    if (kind == 0)
        return;
    if (kind == 1)
        random_bytes(random, bytes, sizeof bytes);
    write_file(directory, "lock.mdb", &(struct disk_file){bytes, sizeof bytes, 0});
}

void disk_write_state(const struct disk *disk, uint32_t names, struct random *random,
                      const char *directory)
{
    static struct disk_file file; /* its memory is used again */
    struct disk_name present[DISK_NAMES_MAX];
    bool has_data = false;

    memcpy(present, disk->names, sizeof present);
    for (uint32_t i = 0; i < names; i++)
        put_naming(present, disk->naming.items[i]);
    for (size_t i = 0; i < DISK_NAMES_MAX; i++) {
        if (present[i].name[0] == '\0')
            continue;
        compose(disk, present[i].file, random, &file);
        write_file(directory, present[i].name, &file);
        has_data = has_data || strcmp(present[i].name, "data.mdb") == 0;
    }
    if (has_data)
        write_lock_file(directory, random);
}
