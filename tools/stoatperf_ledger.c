/* See the header. The ring's size is a power of two, at least a word of bits. */
#include "tools/stoatperf_ledger.h"

#include "base/alloc.h"

enum { WORD_BITS = 64, RING_LEAST = 1024 };

void ledger_release(struct ledger *ledger)
{
    free(ledger->ring);
    *ledger = LEDGER_EMPTY;
}

static uint64_t *word_of(const struct ledger *ledger, uint64_t ordinal)
{
    return &ledger->ring[(ordinal & (ledger->ring_size - 1)) / WORD_BITS];
}

static uint64_t bit_of(uint64_t ordinal)
{
    return 1ull << ordinal % WORD_BITS;
}

static bool has_come(const struct ledger *ledger, uint64_t ordinal)
{
    return (*word_of(ledger, ordinal) & bit_of(ordinal)) != 0;
}

static void grow(struct ledger *ledger, uint64_t size_wanted)
{
    struct ledger larger = *ledger;
    larger.ring_size = max_of(ledger->ring_size, (uint64_t)RING_LEAST);
    while (larger.ring_size < size_wanted)
        larger.ring_size *= 2;
    larger.ring = xcalloc(larger.ring_size / WORD_BITS, sizeof(uint64_t));
    for (uint64_t i = 0; i < ledger->ring_size; i++)
        if (has_come(ledger, ledger->next + i))
            *word_of(&larger, ledger->next + i) |= bit_of(ledger->next + i);
    free(ledger->ring);
    *ledger = larger;
}

/* Moves next over those that came early. */
static void advance(struct ledger *ledger)
{
    while (ledger->ahead > 0 && has_come(ledger, ledger->next)) {
        *word_of(ledger, ledger->next) &= ~bit_of(ledger->next);
        ledger->ahead--;
        ledger->next++;
    }
}

bool ledger_add_ahead(struct ledger *ledger, uint64_t ordinal)
{
    if (ordinal < ledger->next)
        return false;
    if (ordinal - ledger->next >= ledger->ring_size)
        grow(ledger, ordinal - ledger->next + 1);
    if (has_come(ledger, ordinal))
        return false;
    *word_of(ledger, ordinal) |= bit_of(ordinal);
    ledger->ahead++;
    advance(ledger);
    return true;
}
