/* The server's end, when the store says so. That it starts, serves and stops is shown with the real
 * program in tests/integration. */
#include "server.h"

#include <sysexits.h>

#include "base/log.h"
#include "core/broker.h"
#include "store/memory.h"
#include "tests/lib/unit.h"

START_TEST(a_store_that_fails_ends_it)
{
    struct clock clock = {.fake = true, .now_ms = 1000, .wall_ms = 1000};
    struct random random;
    struct config config;
    char error[SERVER_ERROR_SIZE];
    struct store *store = store_memory_new(), *const kept = store;

    atomic_store(&log_level, LOG_NONE);
    random_init_seeded(&random, 1);
    config_init(&config);
    struct server *server = server_new(&config, &clock, &random, &store, error);
    ck_assert_ptr_nonnull(server);
    ck_assert_ptr_null(store);
    if (_i == 1)
        store_memory_fail(kept, EIO);
    else
        server_stop(server);
    loop_run(server_loop(server));
    ck_assert_int_eq(_i == 1 ? EX_IOERR : 0, server_free(&server));
    config_release(&config);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("server");
    TCase *tests = tcase_create("server");
    tcase_add_loop_test(tests, a_store_that_fails_ends_it, 0, 2);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
