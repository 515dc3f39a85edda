/* CRC32C (Castagnoli), the checksum of every record: the processor's instruction where it has one,
 * a table elsewhere. */
#ifndef STORE_CRC32C_H
#define STORE_CRC32C_H

#include "base/base.h"

/* Continues from crc, which is 0 at first: crc32c(crc32c(0, a), b) is crc32c(0, a then b). */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

/* The same without the instruction. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t size);

#endif
