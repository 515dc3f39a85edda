/* From method and path to handler. A pattern is a path whose segments may be arguments:
 *
 *     /api/queues/:vhost/:name/contents
 *
 * Segments of a request's path are decoded one by one after it has been split, so that %2F is a
 * vhost's name and not a separator. */
#ifndef MANAGE_HTTP_ROUTE_H
#define MANAGE_HTTP_ROUTE_H

#include <event2/event.h>
#include <event2/http.h>

#include "base/slice.h"

struct manage_request;

/* Runs on the loop thread; ends with manage_answer or manage_refuse. */
typedef void manage_handler(struct manage_request *request);

struct http_route {
    enum evhttp_cmd_type method;
    const char *pattern;
    manage_handler *handler;
};

enum { HTTP_SEGMENTS_MAX = 12, HTTP_ARGUMENTS_MAX = 4 };

struct http_path { /* split and decoded */
    char *bytes;   /* what the segments point into */
    struct slice segments[HTTP_SEGMENTS_MAX];
    size_t count;
};

/* False: not a path, too many segments, or an escape that is none. To be released in any case. */
bool http_path_parse(struct http_path *path, const char *text);
void http_path_release(struct http_path *path);

/* A route, its arguments. */
struct http_match {
    const struct http_route *route; /* NULL: none for this path and method */
    unsigned methods; /* that the path has, a sum of enum evhttp_cmd_type; 0: no such path */
    struct slice arguments[HTTP_ARGUMENTS_MAX]; /* inside the path */
    size_t argument_count;
};

/* HEAD finds what GET would. */
struct http_match http_route_find(const struct http_route *routes, size_t count,
                                  enum evhttp_cmd_type method, const struct http_path *path);

#endif
