/* Options are rows of a table: name, letter, what to do with the value. Where RabbitMQ PerfTest has
 * an option of the same meaning, its name and letter are taken. */
#include "tools/stoatperf_options.h"

#include <getopt.h>
#include <stdarg.h>
#include <sysexits.h>

#include "base/alloc.h"
#include "base/slice.h"
#include "tools/stoatperf_process.h"

static const char help[] =
    "Usage: stoatperf [OPTION]...\n"
    "Puts load on any AMQP 0-9-1 broker and measures it. Options marked * are named as in RabbitMQ "
    "PerfTest.\n"
    "\n"
    "Load\n"
    "* -h, --uri URI            amqp://user:password@host:port/vhost, or amqps:// for TLS\n"
    "                           (default amqp://guest:guest@localhost:5672/)\n"
    "      --cacert FILE        with amqps: the certificates that the broker's must lead to "
    "(default: "
    "the system's)\n"
    "      --insecure           with amqps: any certificate will do, and anybody may read along\n"
    "* -x, --producers N        publishers, each with a connection (default 1)\n"
    "* -y, --consumers N        consumers, each with a connection (default 1)\n"
    "  -q, --queues N           queues (default 1); publishers and consumers are dealt over them\n"
    "* -s, --size BYTES         body size (default 16); below 16 there is no latency and no "
    "--verify\n"
    "      --fan-out            publish to a fanout exchange to which all queues are bound\n"
    "* -f, --flag FLAG          persistent or mandatory; repeatable\n"
    "      --persistent         the same as --flag persistent --durable\n"
    "* -c, --confirm WINDOW     publisher confirms, at most WINDOW unconfirmed per publisher\n"
    "      --prefetch N         deliveries unacknowledged per consumer (default 0: no limit)\n"
    "* -A, --multi-ack-every N  acknowledge every N deliveries at once; also --ack N (default 0: "
    "no acks asked)\n"
    "* -a, --autoack            the same as --ack 0\n"
    "      --rate N             messages a second of all publishers together, sent when they are "
    "due whatever the\n"
    "                           broker does; latency counts from when a message was due (default "
    "0: unlimited)\n"
    "\n"
    "Length: one of\n"
    "* -z, --time SECONDS       measure this long (default 10), after\n"
    "      --warm-up SECONDS    that is not counted (default 1)\n"
    "      --messages N         publish N in all, measure until the last has been consumed\n"
    "* -C, --pmessages N        the same, N per publisher\n"
    "      --backlog N          publish N in all, then begin to consume: two results, fill and "
    "drain\n"
    "\n"
    "Queues\n"
    "      --queue-prefix NAME  they are NAME-0, NAME-1, ... (default stoatperf-PID); purged "
    "before, deleted after\n"
    "      --durable, --auto-delete\n"
    "* --queue-args K=V,...     arguments of queue.declare, for example x-queue-type=quorum\n"
    "* -p, --predeclared        neither declare, purge nor delete; then -x 0 is possible too\n"
    "\n"
    "Report\n"
    "      --verify             every message once and in order per publisher and queue, or the "
    "run is void\n"
    "      --pid PID            the broker's process, when it runs on this machine: CPU time per "
    "message, memory\n"
    "* -i, --interval SECONDS   between two lines (default 1)\n"
    "      --json               one JSON document instead of text\n"
    "      --help, --version\n"
    "\n"
    "Exit status: 0, 1 when the run is void, 64 for bad usage, 69 when the broker cannot be "
    "reached or ends it.\n";

static void usage_error(const char *format, ...) __attribute__((noreturn)) printf_like(1, 2);

static void usage_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("stoatperf: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\nTry 'stoatperf --help'.\n", stderr);
    va_end(arguments);
    exit(EX_USAGE);
}

void uri_release(struct uri *uri)
{
    free(uri->user);
    free(uri->password);
    free(uri->host);
    free(uri->port);
    free(uri->vhost);
    *uri = (struct uri){0};
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* A copy of [text, end) with every %XX replaced; NULL for a bad one. The default when it is
 * empty. */
static char *decode_part(const char *text, const char *end, const char *otherwise)
{
    if (text == end)
        return xstrdup(otherwise);
    char *const part = xmalloc((size_t)(end - text) + 1);
    char *to = part;
    while (text < end) {
        if (*text != '%') {
            *to++ = *text++;
            continue;
        }
        const int high = end - text > 2 ? hex_digit(text[1]) : -1;
        const int low = high < 0 ? -1 : hex_digit(text[2]);
        if (low < 0 || (high == 0 && low == 0)) {
            free(part);
            return NULL;
        }
        *to++ = (char)(high << 4 | low);
        text += 3;
    }
    *to = '\0';
    return part;
}

/* The first of `which` in [text, end), or end. */
static const char *find_any(const char *text, const char *end, const char *which)
{
    while (text < end && strchr(which, *text) == NULL)
        text++;
    return text;
}

const char *uri_parse(struct uri *uri, const char *text)
{
    *uri = (struct uri){0};
    uri->tls = strncmp(text, "amqps://", 8) == 0;
    if (!uri->tls && strncmp(text, "amqp://", 7) != 0)
        return "it must begin with amqp:// or amqps://";
    text += uri->tls ? 8 : 7;

    const char *const default_port = uri->tls ? "5671" : "5672";
    const char *const end = text + strcspn(text, "?#");
    const char *const slash = find_any(text, end, "/");
    const char *const at = find_any(text, slash, "@");
    const char *const user_end = find_any(text, at, ":");
    const bool has_user = at < slash;
    const char *const host = has_user ? at + 1 : text;
    const bool bracket = host < slash && *host == '[';
    const char *const host_end = find_any(host, slash, bracket ? "]" : ":");
    const char *const port = host_end + (bracket && host_end < slash);

    uri->user = has_user ? decode_part(text, user_end, "guest") : xstrdup("guest");
    uri->password =
        has_user && user_end < at ? decode_part(user_end + 1, at, "") : xstrdup("guest");
    uri->host = decode_part(host + bracket, host_end, "localhost");
    uri->port = port < slash ? decode_part(port + 1, slash, default_port) : xstrdup(default_port);
    uri->vhost = slash < end ? decode_part(slash + 1, end, "/") : xstrdup("/");
    uint64_t number;
    const char *problem = NULL;
    if (uri->user == NULL || uri->password == NULL || uri->host == NULL || uri->vhost == NULL)
        problem = "bad percent-encoding";
    else if (uri->port == NULL || !slice_to_u64(slice_of_string(uri->port), 65535, &number) ||
             (port < slash && *port != ':') || (bracket && host_end == slash))
        problem = "bad host or port";
    else if (strlen(uri->vhost) > 255)
        problem = "the vhost has more than 255 octets";
    if (problem != NULL)
        uri_release(uri);
    return problem;
}

enum option_id {
    OPTION_URI = 256,
    OPTION_CACERT,
    OPTION_INSECURE,
    OPTION_PUBLISHERS,
    OPTION_CONSUMERS,
    OPTION_QUEUES,
    OPTION_SIZE,
    OPTION_FAN_OUT,
    OPTION_FLAG,
    OPTION_PERSISTENT,
    OPTION_CONFIRM,
    OPTION_PREFETCH,
    OPTION_ACK,
    OPTION_AUTOACK,
    OPTION_RATE,
    OPTION_TIME,
    OPTION_WARM_UP,
    OPTION_MESSAGES,
    OPTION_PMESSAGES,
    OPTION_BACKLOG,
    OPTION_QUEUE_PREFIX,
    OPTION_DURABLE,
    OPTION_AUTO_DELETE,
    OPTION_QUEUE_ARGS,
    OPTION_PREDECLARED,
    OPTION_VERIFY,
    OPTION_PID,
    OPTION_INTERVAL,
    OPTION_JSON,
    OPTION_HELP,
    OPTION_VERSION,
};

static const struct option long_options[] = {
    {"uri", required_argument, NULL, OPTION_URI},
    {"cacert", required_argument, NULL, OPTION_CACERT},
    {"insecure", no_argument, NULL, OPTION_INSECURE},
    {"producers", required_argument, NULL, OPTION_PUBLISHERS},
    {"publishers", required_argument, NULL, OPTION_PUBLISHERS},
    {"consumers", required_argument, NULL, OPTION_CONSUMERS},
    {"queues", required_argument, NULL, OPTION_QUEUES},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"fan-out", no_argument, NULL, OPTION_FAN_OUT},
    {"flag", required_argument, NULL, OPTION_FLAG},
    {"persistent", no_argument, NULL, OPTION_PERSISTENT},
    {"confirm", required_argument, NULL, OPTION_CONFIRM},
    {"prefetch", required_argument, NULL, OPTION_PREFETCH},
    {"multi-ack-every", required_argument, NULL, OPTION_ACK},
    {"ack", required_argument, NULL, OPTION_ACK},
    {"autoack", no_argument, NULL, OPTION_AUTOACK},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"time", required_argument, NULL, OPTION_TIME},
    {"warm-up", required_argument, NULL, OPTION_WARM_UP},
    {"messages", required_argument, NULL, OPTION_MESSAGES},
    {"pmessages", required_argument, NULL, OPTION_PMESSAGES},
    {"backlog", required_argument, NULL, OPTION_BACKLOG},
    {"queue-prefix", required_argument, NULL, OPTION_QUEUE_PREFIX},
    {"durable", no_argument, NULL, OPTION_DURABLE},
    {"auto-delete", no_argument, NULL, OPTION_AUTO_DELETE},
    {"queue-args", required_argument, NULL, OPTION_QUEUE_ARGS},
    {"predeclared", no_argument, NULL, OPTION_PREDECLARED},
    {"verify", no_argument, NULL, OPTION_VERIFY},
    {"pid", required_argument, NULL, OPTION_PID},
    {"interval", required_argument, NULL, OPTION_INTERVAL},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

static const struct {
    char letter;
    enum option_id id;
} letters[] = {
    {'h', OPTION_URI},      {'x', OPTION_PUBLISHERS}, {'y', OPTION_CONSUMERS},
    {'q', OPTION_QUEUES},   {'s', OPTION_SIZE},       {'f', OPTION_FLAG},
    {'c', OPTION_CONFIRM},  {'A', OPTION_ACK},        {'a', OPTION_AUTOACK},
    {'z', OPTION_TIME},     {'C', OPTION_PMESSAGES},  {'p', OPTION_PREDECLARED},
    {'i', OPTION_INTERVAL},
};

static int option_of_letter(int letter)
{
    for (size_t i = 0; i < countof(letters); i++)
        if (letters[i].letter == letter)
            return (int)letters[i].id;
    return letter;
}

static uint64_t number_value(const char *what, const char *text, uint64_t least, uint64_t most)
{
    uint64_t value;
    if (!slice_to_u64(slice_of_string(text), most, &value) || value < least)
        usage_error("%s must be a number from %" PRIu64 " to %" PRIu64 ", not '%s'", what, least,
                    most, text);
    return value;
}

static double seconds_value(const char *what, const char *text, double least)
{
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least) || value > 1e6)
        usage_error("%s must be seconds, at least %g, not '%s'", what, least, text);
    return value;
}

static void flag_value(struct options *options, const char *text)
{
    if (strcmp(text, "persistent") == 0)
        options->persistent = true;
    else if (strcmp(text, "mandatory") == 0)
        options->mandatory = true;
    else
        usage_error("--flag is persistent or mandatory, not '%s'", text);
}

/* "key=value,key=value", nothing of it empty. */
static bool is_arguments(const char *text)
{
    for (;;) {
        const size_t size = strcspn(text, ",");
        const size_t key_size = strcspn(text, "=,");
        if (key_size == 0 || key_size > 255 || key_size + 1 >= size)
            return false;
        if (text[size] == '\0')
            return true;
        text += size + 1;
    }
}

enum { CLIENTS_MAX = 65535, MESSAGES_MAX_BITS = 48 };

static void set_load(struct options *options, int id, const char *value)
{
    const uint64_t messages_max = (1ull << MESSAGES_MAX_BITS) - 1;
    switch (id) {
    case OPTION_PUBLISHERS:
        options->publishers = (uint32_t)number_value("--producers", value, 0, CLIENTS_MAX);
        break;
    case OPTION_CONSUMERS:
        options->consumers = (uint32_t)number_value("--consumers", value, 0, CLIENTS_MAX);
        break;
    case OPTION_QUEUES:
        options->queues = (uint32_t)number_value("--queues", value, 1, 10000000);
        break;
    case OPTION_SIZE:
        options->body_size = number_value("--size", value, 0, 1ull << 30);
        break;
    case OPTION_CONFIRM:
        options->confirm_window = (uint32_t)number_value("--confirm", value, 1, 10000000);
        break;
    case OPTION_PREFETCH:
        options->prefetch = (uint32_t)number_value("--prefetch", value, 0, 65535);
        break;
    case OPTION_ACK:
        options->ack_batch = (uint32_t)number_value("--ack", value, 0, 1000000);
        break;
    case OPTION_RATE:
        options->rate = number_value("--rate", value, 0, 1000000000);
        break;
    case OPTION_MESSAGES:
        options->messages = number_value("--messages", value, 1, messages_max);
        break;
    case OPTION_BACKLOG:
        options->backlog = number_value("--backlog", value, 1, messages_max);
        break;
    default:
        assert(!"an option without a meaning");
    }
}

static void set_option(struct options *options, int id, const char *value)
{
    const char *problem;
    switch (id) {
    case OPTION_URI:
        uri_release(&options->uri);
        problem = uri_parse(&options->uri, value);
        if (problem != NULL)
            usage_error("bad --uri '%s': %s", value, problem);
        break;
    case OPTION_CACERT:
        options->ca_file = value;
        break;
    case OPTION_INSECURE:
        options->insecure = true;
        break;
    case OPTION_FAN_OUT:
        options->fan_out = true;
        break;
    case OPTION_FLAG:
        flag_value(options, value);
        break;
    case OPTION_PERSISTENT:
        options->persistent = options->durable = true;
        break;
    case OPTION_AUTOACK:
        options->ack_batch = 0;
        break;
    case OPTION_TIME:
        options->time_s = seconds_value("--time", value, 0.1);
        break;
    case OPTION_WARM_UP:
        options->warm_up_s = seconds_value("--warm-up", value, 0);
        break;
    case OPTION_INTERVAL:
        options->interval_s = seconds_value("--interval", value, 0.01);
        break;
    case OPTION_QUEUE_PREFIX:
        options->queue_prefix = value;
        break;
    case OPTION_DURABLE:
        options->durable = true;
        break;
    case OPTION_AUTO_DELETE:
        options->auto_delete = true;
        break;
    case OPTION_QUEUE_ARGS:
        if (!is_arguments(value))
            usage_error("--queue-args must be key=value,..., not '%s'", value);
        options->queue_args = value;
        break;
    case OPTION_PREDECLARED:
        options->predeclared = true;
        break;
    case OPTION_VERIFY:
        options->verify = true;
        break;
    case OPTION_PID:
        options->pid = (int32_t)number_value("--pid", value, 1, INT32_MAX);
        break;
    case OPTION_JSON:
        options->json = true;
        break;
    default:
        set_load(options, id, value);
    }
}

static bool is_process(int32_t pid)
{
    struct process_usage usage;

    process_usage_of(&usage, pid);
    return usage.known;
}

/* What each option allows on its own but not together. */
static void check_options(const struct options *options)
{
    if (options->publishers == 0 && !options->predeclared)
        usage_error("-x 0 needs --predeclared: there would be nothing to consume");
    if (options->publishers == 0 && (options->backlog > 0 || options->messages > 0))
        usage_error("-x 0 publishes nothing, so that only --time can say how long");
    if (options->publishers + options->consumers == 0)
        usage_error("neither publishers nor consumers");
    if ((options->ca_file != NULL || options->insecure) && !options->uri.tls)
        usage_error("--cacert and --insecure are for amqps://, and the URI is not");
    if (options->ca_file != NULL && options->insecure)
        usage_error("--cacert and --insecure exclude each other");
    if (options->backlog > 0 && options->messages > 0)
        usage_error("--backlog and --messages exclude each other");
    if (options->time_s > 0 && options->messages > 0)
        usage_error("--time and --messages exclude each other");
    if (options->time_s > 0 && options->backlog > 0)
        usage_error("--time and --backlog exclude each other");
    if (options->backlog > 0 && options->consumers == 0)
        usage_error("--backlog needs consumers");
    if (options->prefetch > 0 && options->ack_batch > options->prefetch)
        usage_error("--ack %" PRIu32 " would wait for ever with --prefetch %" PRIu32,
                    options->ack_batch, options->prefetch);
    if (options->verify && options->body_size < 16)
        usage_error("--verify needs bodies of at least 16 bytes");
    if (options->verify && (options->consumers == 0 || options->predeclared))
        usage_error("--verify needs consumers, and queues of its own");
    if (options->queue_prefix != NULL &&
        (strlen(options->queue_prefix) == 0 || strlen(options->queue_prefix) > 200))
        usage_error("--queue-prefix must have 1 to 200 octets");
    if (options->pid != 0 && !is_process(options->pid))
        usage_error("--pid: there is no process %" PRId32 " on this machine", options->pid);
}

void options_parse(struct options *options, int argc, char **argv)
{
    *options = (struct options){
        .publishers = 1,
        .consumers = 1,
        .queues = 1,
        .body_size = 16,
        .warm_up_s = 1,
        .interval_s = 1,
    };
    uri_parse(&options->uri, "amqp://");

    uint64_t per_publisher = 0;
    int id;
    while ((id = getopt_long(argc, argv, "h:x:y:q:s:f:c:A:az:C:pi:", long_options, NULL)) != -1) {
        id = option_of_letter(id);
        if (id == OPTION_HELP || id == OPTION_VERSION) {
            fputs(id == OPTION_HELP ? help : "stoatperf " STOATMQ_VERSION "\n", stdout);
            exit(EXIT_SUCCESS);
        }
        if (id == '?') {
            fputs("Try 'stoatperf --help'.\n", stderr);
            exit(EX_USAGE);
        }
        if (id == OPTION_PMESSAGES)
            per_publisher = number_value("--pmessages", optarg, 1, 1ull << 32);
        else
            set_option(options, id, optarg);
    }
    if (optind < argc)
        usage_error("'%s' is not an option", argv[optind]);
    if (per_publisher > 0)
        options->messages = per_publisher * options->publishers;
    check_options(options);
    if (options->time_s == 0)
        options->time_s = 10;
}

void options_release(struct options *options)
{
    uri_release(&options->uri);
}
