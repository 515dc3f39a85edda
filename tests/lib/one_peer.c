#include "tests/lib/one_peer.h"

struct harness harness;
struct peer *peer;

void set_up(void)
{
    harness_init(&harness, NULL);
    peer = peer_open_channel(&harness);
}

void tear_down(void)
{
    harness_release(&harness);
}

void restart(bool crash)
{
    harness_restart(&harness, crash);
    harness_run(&harness);
    peer = peer_open_channel(&harness);
}
