/* See body.h. */
#include "store/body.h"

#include "base/fault.h"
#include "store/crc32c.h"

void body_reader_begin(struct body_reader *reader, const struct database *database, MDB_txn *txn)
{
    *reader = (struct body_reader){.txn = txn, .dbi = database->dbi[DB_BLOB]};
}

static bool find_part(struct body_reader *reader, uint64_t blob, uint32_t part)
{
    if (reader->bytes.data != NULL && reader->blob == blob && reader->part == part)
        return true;
    const struct key wanted = key_part(blob, part);
    MDB_val key = val_of(key_slice(&wanted)), value;

    reader->bytes.data = NULL;
    if (mdb_get(reader->txn, reader->dbi, &key, &value) != 0 || !part_check(slice_of_val(value)))
        return false;
    reader->blob = blob;
    reader->part = part;
    reader->bytes =
        slice_of((uint8_t *)value.mv_data + PART_HEADER_SIZE, value.mv_size - PART_HEADER_SIZE);
    return true;
}

bool body_read(struct body_reader *reader, uint64_t blob, const struct segment_entry *entry,
               uint8_t *to)
{
    const struct place *place = &entry->place;
    uint32_t part = place->part, offset = place->offset, crc = body_checksum(blob, place);

    for (uint32_t read = 0; read < place->size; part++, offset = 0) {
        if (!find_part(reader, blob, part) || reader->bytes.size <= offset) {
            if (to != NULL)
                memset(to + read, 0, place->size - read);
            return false;
        }
        const size_t size = min_of(reader->bytes.size - offset, (size_t)(place->size - read));
        crc = crc32c(crc, reader->bytes.data + offset, size);
        if (to != NULL)
            memcpy(to + read, reader->bytes.data + offset, size);
        read += (uint32_t)size;
    }
    return crc == entry->crc || fault_bug(FAULT_SKIP_CHECKSUM);
}
