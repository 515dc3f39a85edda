/* What is amiss in a store, as whoever found it says it: the walk behind the clients (verify.c), or
 * a fetch that met it (reader.c). */
#ifndef STORE_DAMAGE_H
#define STORE_DAMAGE_H

#include "base/slice.h"

enum damage_kind {
    DAMAGE_BODY,   /* an entry's body is not what was put: the owner sets it aside */
    DAMAGE_QUEUE,  /* the rest is the committer's to put right (mend.h): rows about a queue */
    DAMAGE_BLOB,   /* rows about a blob */
    DAMAGE_RECORD, /* a record */
};

enum { DAMAGE_KEY_MAX = 511 };

struct damage {
    enum damage_kind kind;
    uint64_t id;       /* of the queue, of the blob */
    uint64_t position; /* of the entry; of a blob: the LSN under which it stands in `sparse`
                                    and should not, or 0 */
    uint8_t key[DAMAGE_KEY_MAX]; /* of the record */
    size_t key_size;
};

#endif
