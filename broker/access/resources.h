/* How much memory and disk there is, and how many descriptors, and how much of it is left: what the
 * alarms of a real process are judged by.
 *
 * Memory *used* is what only we can give back: resident pages that belong to no file. The store
 * maps its file, and the kernel keeps as much of that resident as it likes and takes it back when
 * it must; to count it would be to raise an alarm that no consumer can end. What the allocator
 * holds but nobody uses is given back first (resources_release), so that a drained backlog ends an
 * alarm.
 *
 * Memory *in all* is the machine's, or less where a control group says so, ours or one above it, of
 * either version. */
#ifndef ACCESS_RESOURCES_H
#define ACCESS_RESOURCES_H

#include "base/base.h"

uint64_t resources_memory_total(void);
uint64_t resources_memory_used(void);                /* 0: it cannot be known */
uint64_t resources_disk_free(const char *directory); /* for us; UINT64_MAX likewise */
void resources_release(void);
uint64_t resources_descriptors_max(void);  /* of this process */
uint64_t resources_descriptors_used(void); /* 0: it cannot be known */

/* The least limit that the control groups of one line of /proc/self/cgroup set, their files being
 * under root; UINT64_MAX: none. */
uint64_t resources_group_limit(const char *line, const char *root);

#endif
