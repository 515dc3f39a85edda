/* http_route: paths into segments, and segments to routes and their arguments. */
#include "manage/http_route.h"

#include "tests/lib/unit.h"

static void handle_list(struct manage_request *request)
{
    (void)request;
}

static void handle_one(struct manage_request *request)
{
    (void)request;
}

static void handle_delete(struct manage_request *request)
{
    (void)request;
}

static const struct http_route routes[] = {
    {EVHTTP_REQ_GET, "/api/queues", handle_list},
    {EVHTTP_REQ_GET, "/api/queues/:vhost", handle_list},
    {EVHTTP_REQ_GET, "/api/queues/:vhost/:name", handle_one},
    {EVHTTP_REQ_DELETE, "/api/queues/:vhost/:name", handle_delete},
    {EVHTTP_REQ_DELETE, "/api/queues/:vhost/:name/contents", handle_delete},
};

#define GET  EVHTTP_REQ_GET
#define HEAD EVHTTP_REQ_HEAD
#define PUT  EVHTTP_REQ_PUT
#define DEL  EVHTTP_REQ_DELETE

static const struct {
    enum evhttp_cmd_type method;
    const char *path;
    manage_handler *handler; /* NULL: none */
    unsigned methods;
    struct slice arguments[2];
} cases[] = {
    {GET, "/api/queues", handle_list, GET, {{0}}},
    {HEAD, "/api/queues", handle_list, GET, {{0}}},
    {GET, "/api/queues/%2F", handle_list, GET, {SLICE("/")}},
    {GET, "/api/queues/%2f/a", handle_one, GET, {SLICE("/"), SLICE("a")}},
    {GET, "/api/queues/%2F/a%2Fb%00%ff", handle_one, GET, {SLICE("/"), SLICE("a/b\0\xff")}},
    {GET, "/api/queues/v/..", handle_one, GET, {SLICE("v"), SLICE("..")}},
    {GET, "/api/queues/v/", handle_one, GET, {SLICE("v"), SLICE("")}},
    {GET, "/%61pi/queues", handle_list, GET, {{0}}},
    {DEL, "/api/queues/v/q", handle_delete, GET | DEL, {SLICE("v"), SLICE("q")}},
    {DEL, "/api/queues/v/q/contents", handle_delete, DEL, {SLICE("v"), SLICE("q")}},
    {PUT, "/api/queues/v/q", NULL, GET | DEL, {{0}}},
    {GET, "/api/queues/v/q/contents", NULL, DEL, {{0}}},
    {GET, "/", NULL, 0, {{0}}},
    {GET, "/api", NULL, 0, {{0}}},
    {GET, "/api/queue", NULL, 0, {{0}}},
    {GET, "/api/queuess", NULL, 0, {{0}}},
    {GET, "/api/queues/v/q/contents/more", NULL, 0, {{0}}},
    {GET, "//api/queues", NULL, 0, {{0}}},
};

START_TEST(finds_the_route) /* CVE-2026-67224 */
{
    struct http_path path;

    ck_assert(http_path_parse(&path, cases[_i].path));
    const struct http_match match =
        http_route_find(routes, countof(routes), cases[_i].method, &path);
    ck_assert_ptr_eq(cases[_i].handler, match.route == NULL ? NULL : match.route->handler);
    if (match.route == NULL) {
        ck_assert_uint_eq(cases[_i].methods, match.methods);
    } else {
        for (size_t i = 0; i < match.argument_count; i++)
            ck_assert(slice_equal(cases[_i].arguments[i], match.arguments[i]));
    }
    http_path_release(&path);
}
END_TEST

static const char *const bad[] = {
    "", "api/queues", "/%", "/%4", "/%zz", "/a/%2", "/%%41", "/1/2/3/4/5/6/7/8/9/10/11/12/13",
};

START_TEST(refuses_what_is_no_path) /* CVE-2026-67224 */
{
    struct http_path path;

    ck_assert(!http_path_parse(&path, bad[_i]));
    http_path_release(&path);
}
END_TEST

START_TEST(cut_anywhere)
{
    static const char whole[] = "/api/queues/%2F/a%ffb/contents";

    for (size_t size = 0; size < sizeof(whole); size++) {
        char *text = strndup(whole, size);
        struct http_path path;
        if (http_path_parse(&path, text))
            http_route_find(routes, countof(routes), EVHTTP_REQ_GET, &path);
        http_path_release(&path);
        free(text);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_route");
    TCase *tests = tcase_create("http_route");
    tcase_add_loop_test(tests, finds_the_route, 0, countof(cases));
    tcase_add_loop_test(tests, refuses_what_is_no_path, 0, countof(bad));
    tcase_add_test(tests, cut_anywhere);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
