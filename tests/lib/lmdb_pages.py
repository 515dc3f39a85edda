"""Which page of an LMDB file is what, as the newest of its two meta pages tells.

    kinds, values = lmdb_pages.classify(data)

kinds: page -> (kind, database); values: (begin, end, database) of every value, ascending. kind is meta, branch, leaf, overflow (the first and all that follow it) or free: not reachable. database is the name of
the one that the page belongs to, `main` for the table of databases, `free` for the list of free pages, '' for what
belongs to none. Read from LMDB's header text and source: a page begins with

    number u64 | pad u16 | flags u16 | lower u16, upper u16, or for overflow the number of pages u32

and a node with low half and high half of the size u16 each | flags u16 | key size u16 | key | value.
"""

import struct

PAGE = 4096
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8
BIG, SUB = 1, 2
ROOT_NONE = (1 << 64) - 1


def newest_meta(data):
    """(transaction, root of the free list, root of the main table)."""
    metas = []
    for at in (0, PAGE):
        body = at + 16
        free_root, = struct.unpack_from('<Q', data, body + 24 + 40)
        main_root, last, transaction = struct.unpack_from('<QQQ', data, body + 72 + 40)
        metas.append((transaction, free_root, main_root, last))
    return max(metas)


def nodes(data, page):
    """(flags, key, where the value begins, its size or for a branch the child) of each node."""
    lower, = struct.unpack_from('<H', data, page * PAGE + 12)
    leaf = struct.unpack_from('<H', data, page * PAGE + 10)[0] & LEAF
    for slot in range((lower - 16) // 2):
        offset, = struct.unpack_from('<H', data, page * PAGE + 16 + 2 * slot)
        at = page * PAGE + offset
        low, high, flags, key_size = struct.unpack_from('<HHHH', data, at)
        key = bytes(data[at + 8:at + 8 + key_size])
        if leaf:
            yield flags, key, at + 8 + key_size, low | high << 16
        else:
            yield flags, key, None, low | high << 16 | flags << 32


def classify(data):
    transaction, free_root, main_root, _ = newest_meta(data)
    kinds = {page: ('free', '') for page in range(len(data) // PAGE)}
    values = []
    kinds[0] = kinds[1] = ('meta', '')
    waiting = [(free_root, 'free'), (main_root, 'main')]
    while waiting:
        page, name = waiting.pop()
        if page == ROOT_NONE:
            continue
        flags, = struct.unpack_from('<H', data, page * PAGE + 10)
        kinds[page] = ('leaf' if flags & LEAF else 'branch', name)
        for node_flags, key, value, size in nodes(data, page):
            if value is None:
                waiting.append((size, name))
            elif name == 'main' and node_flags & SUB:
                waiting.append((struct.unpack_from('<Q', data, value + 40)[0], key.decode()))
            elif node_flags & BIG:
                first, = struct.unpack_from('<Q', data, value)
                count, = struct.unpack_from('<I', data, first * PAGE + 12)
                kinds.update((page, ('overflow', name)) for page in range(first, first + count))
                values.append((first * PAGE + 16, first * PAGE + 16 + size, name))
            else:
                values.append((value, value + size, name))
    return kinds, sorted(values)
