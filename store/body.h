/* Reading bodies out of their blobs, in one transaction. */
#ifndef STORE_BODY_H
#define STORE_BODY_H

#include "store/database.h"

struct body_reader {
    MDB_txn *txn;
    MDB_dbi dbi;

    /* The part looked up last: neighbours share it. */
    uint64_t blob;
    uint32_t part;
    struct slice bytes; /* without its header; data NULL: none */
};

/* Until the transaction writes or ends. */
void body_reader_begin(struct body_reader *reader, const struct database *database, MDB_txn *txn);

/* Copies the body of the entry to `to`, which may be NULL to have it checked alone. false: it is
 * not there, not as large as it should be, or its checksum does not hold; `to` has what is left of
 * it then, and zeros. */
bool body_read(struct body_reader *reader, uint64_t blob, const struct segment_entry *entry,
               uint8_t *to);

#endif
