#include "manage/http_route.h"

#include "base/alloc.h"

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place; the decoded form is never longer. */
static bool decode(struct slice encoded, char *out, struct slice *decoded)
{
    size_t size = 0;

    for (size_t at = 0; at < encoded.size; at++) {
        int byte = encoded.data[at];
        if (byte == '%') {
            if (encoded.size - at < 3)
                return false;
            const int high = hex_digit(encoded.data[at + 1]);
            const int low = hex_digit(encoded.data[at + 2]);
            if (high < 0 || low < 0)
                return false;
            byte = high << 4 | low;
            at += 2;
        }
        out[size++] = (char)byte;
    }
    *decoded = slice_of(out, size);
    return true;
}

bool http_path_parse(struct http_path *path, const char *text)
{
    *path = (struct http_path){.bytes = xstrdup(text)};
    char *at = path->bytes;

    if (*at != '/')
        return false;
    while (*at == '/') {
        at++;
        const size_t size = strcspn(at, "/");
        if (path->count == HTTP_SEGMENTS_MAX ||
            !decode(slice_of(at, size), at, &path->segments[path->count]))
            return false;
        path->count++;
        at += size;
    }
    return true;
}

void http_path_release(struct http_path *path)
{
    free(path->bytes);
    *path = (struct http_path){0};
}

static bool matches(const char *pattern, const struct http_path *path, struct http_match *match)
{
    size_t at = 0;

    match->argument_count = 0;
    for (; *pattern == '/'; at++) {
        pattern++;
        const size_t size = strcspn(pattern, "/");
        if (at == path->count)
            return false;
        if (*pattern == ':') {
            assert(match->argument_count < HTTP_ARGUMENTS_MAX);
            match->arguments[match->argument_count++] = path->segments[at];
        } else if (!slice_equal(slice_of(pattern, size), path->segments[at])) {
            return false;
        }
        pattern += size;
    }
    return at == path->count;
}

struct http_match http_route_find(const struct http_route *routes, size_t count,
                                  enum evhttp_cmd_type method, const struct http_path *path)
{
    struct http_match match = {.route = NULL};
    unsigned methods = 0;

    if (method == EVHTTP_REQ_HEAD)
        method = EVHTTP_REQ_GET;
    for (size_t i = 0; i < count && match.route == NULL; i++) {
        if (!matches(routes[i].pattern, path, &match))
            continue;
        methods |= routes[i].method;
        if (routes[i].method == method)
            match.route = &routes[i];
    }
    match.methods = methods;
    return match;
}
