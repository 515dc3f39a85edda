/* The process: options, limits, signals, exit status. Everything else is the server's.
 *
 * The order of a start: configuration, process limits, signals, user, data directory and its lock,
 * store, server, listeners, `ready`. Each step that fails says why in one sentence on stderr
 * (whatever the log is set to) and ends the process with a status of sysexits.h:
 *
 *     64 usage            66 the store was taken away   69 an address cannot be listened on
 *     71 system           73 data directory             74 store
 *     78 configuration
 *
 * Of these 64, 66 and 78 stay as they are until somebody comes; the others may be over at the next
 * start, and a service manager should try again (etc/stoatmq.service).
 *
 * Signals come through a signalfd as events of the loop, so a handler may do anything. They are
 * blocked before the first thread is started, hence in all of them. Until the loop runs they wait;
 * whether one that stops us does is looked at between the steps and, in those that may take
 * minutes, every few milliseconds: then the start is given up, and nothing is lost but its time.
 * The service manager is told meanwhile that we are alive. */
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/slice.h"
#include "config.h"
#include "data_dir.h"
#include "privileges.h"
#include "sandbox.h"
#include "server.h"
#include "store/store.h"

static const char help[] =
    "Usage: stoatmq [OPTION]...\n"
    "Message broker for AMQP 0-9-1 clients.\n"
    "\n"
    "  --config FILE      read the configuration from FILE, and from conf.d beside it, in place\n"
    "                     of " CONFIG_FILE "\n"
    "  --data-dir DIR     keep the data in DIR; short for --set data_dir=DIR\n"
    "  --set KEY=VALUE    set any key of the configuration; may be repeated, the last one wins\n"
    "  --check-config     check the configuration, its certificates and its user, and exit\n"
    "  --version          print the version and exit\n"
    "  --help             print this help and exit\n"
    "\n"
    "Keys may also be set in the environment: STOATMQ_ and the key in upper case, with dots\n"
    "as underscores. SIGTERM and SIGINT stop the broker in order, a second one hurries.\n"
    "\n"
    "Exit status: 0 after an orderly stop, 64 for a mistake in these options, 66 when the\n"
    "store was taken away, 69 when an address cannot be listened on, 73 when the data\n"
    "directory cannot be used, 74 when the store fails, 78 for a mistake in the configuration.\n";

printf_like(1, 2) static void complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%sstoatmq: ", log_priority(LOG_ERROR));
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

/* ---- options ------------------------------------------------------------------------------- */

struct options {
    const char *config_file; /* NULL: the default one, if it is there */
    char **assignments;      /* of --set and --data-dir, in their order */
    size_t assignment_count;
    bool check_config;
};

static void add_assignment(struct options *options, char *assignment)
{
    options->assignments = xrealloc(options->assignments, options->assignment_count + 1,
                                    sizeof(*options->assignments));
    options->assignments[options->assignment_count++] = assignment;
}

static void options_release(struct options *options)
{
    while (options->assignment_count > 0)
        free(options->assignments[--options->assignment_count]);
    free(options->assignments);
}

/* -1: go on; else the exit status. */
static int options_parse(struct options *options, int argc, char **argv)
{
    enum { CONFIG = 1, DATA_DIR, SET, CHECK_CONFIG, VERSION, HELP };
    static const struct option known[] = {{"config", required_argument, NULL, CONFIG},
                                          {"data-dir", required_argument, NULL, DATA_DIR},
                                          {"set", required_argument, NULL, SET},
                                          {"check-config", no_argument, NULL, CHECK_CONFIG},
                                          {"version", no_argument, NULL, VERSION},
                                          {"help", no_argument, NULL, HELP},
                                          {NULL, 0, NULL, 0}};
    *options = (struct options){.config_file = getenv("STOATMQ_CONFIG_FILE")};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case CONFIG:
            options->config_file = optarg;
            break;
        case DATA_DIR:
            add_assignment(options, xasprintf("data_dir=%s", optarg));
            break;
        case SET:
            add_assignment(options, xstrdup(optarg));
            break;
        case CHECK_CONFIG:
            options->check_config = true;
            break;
        case VERSION:
            puts("stoatmq " STOATMQ_VERSION);
            return EXIT_SUCCESS;
        case HELP:
            fputs(help, stdout);
            return EXIT_SUCCESS;
        default:
            fputs("Try 'stoatmq --help'.\n", stderr);
            return EX_USAGE;
        }
    }
    if (optind == argc)
        return -1;
    complain("unexpected argument '%s'\nTry 'stoatmq --help'.", argv[optind]);
    return EX_USAGE;
}

static void complain_of(const char *sentence)
{
    complain("%s", sentence);
}

/* What the configuration names outside of itself: files and the user. */
static bool check_surroundings(const struct config *config)
{
    char error[SERVER_ERROR_SIZE];
    static_assert((int)PRIVILEGES_ERROR_SIZE <= (int)SERVER_ERROR_SIZE,
                  "a sentence for the operator");
    bool ok = true;

    if (!server_check_files(config, error)) {
        complain("%s", error);
        ok = false;
    }
    if (*config->user != '\0' &&
        privileges_check(config->user, config_origin(config, "user"), error) != 0) {
        complain("%s", error);
        ok = false;
    }
    return ok;
}

/* Every mistake is told. */
static bool read_config(struct config *config, const struct options *options)
{
    char error[CONFIG_ERROR_SIZE];

    config->on_mistake = complain_of;
    bool ok = config_read_file(config, options->config_file, error);
    ok = config_read_environment(config, environ, error) && ok;
    for (size_t i = 0; i < options->assignment_count; i++)
        ok = config_set(config, options->assignments[i], error) && ok;
    ok = config_check(config, error) && ok;
    return check_surroundings(config) && ok;
}

static int report_valid(const struct config *config)
{
    puts("The configuration is valid.");
    if (config->user[0] != '\0')
        printf(geteuid() == 0
                   ? "Its files were read as root; user %s must be able to read them, too (user).\n"
                   : "It is for a start as root or as user %s (user).\n",
               config->user);
    return EXIT_SUCCESS;
}

/* ---- the process --------------------------------------------------------------------------- */

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warning("cannot raise the limit of open files: %s", strerror(errno));
}

/* Nobody but us reads what we write; no core file holds a client's secrets; the heap stays in few
 * pieces, and blocks of messages up to some megabytes are taken from it rather than mapped, page
 * fault by page fault. */
static void prepare_process(const struct config *config)
{
    umask(077);
    atomic_store(&log_level, (int)(config->log_console ? config->log_level : LOG_NONE));
    setrlimit(RLIMIT_CORE, &(struct rlimit){0});
    raise_descriptor_limit();
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
    mallopt(M_TRIM_THRESHOLD, 4 * 1024 * 1024);
}

/* Tells the service manager, if there is one: the whole of sd_notify(3) that we need. */
static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || (*path != '/' && *path != '@') || strlen(path) >= sizeof(address.sun_path))
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (*path == '@')
        address.sun_path[0] = '\0';
    const socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));

    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address, size) < 0)
        log_warning("cannot notify the service manager: %s", strerror(errno));
    close(fd);
}

/* ---- signals ------------------------------------------------------------------------------- */

struct signals {
    struct source source;
    struct server *server;
    bool stopping; /* one has come that stops us */
};

static void on_signal(struct signals *signals, uint32_t number)
{
    if (number == SIGHUP) {
        log_info("SIGHUP received - reloading");
        server_reload(signals->server);
        return;
    }
    log_info("SIG%s received - shutting down%s", sigabbrev_np((int)number),
             signals->stopping ? " at once" : "");
    if (signals->stopping) {
        server_abort(signals->server);
        return;
    }
    signals->stopping = true;
    notify("STOPPING=1");
    server_stop(signals->server);
}

static void on_signals_ready(struct source *source, uint32_t events)
{
    struct signals *signals = container_of(source, struct signals, source);
    struct signalfd_siginfo info;
    (void)events;
    while (read(source->fd, &info, sizeof(info)) == sizeof(info))
        on_signal(signals, info.ssi_signo);
}

/* Blocks the signals and opens the descriptor that they are read from; 0 or -errno. */
static int signals_open(struct signals *signals)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond RLIMIT_FSIZE is one that finds no room */
    signal(SIGUSR1, SIG_IGN); /* means something to other servers, and is sent to ours by habit */
    signal(SIGUSR2, SIG_IGN);
    *signals = (struct signals){.source = {.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC),
                                           .on_ready = on_signals_ready}};
    return signals->source.fd < 0 ? -errno : 0;
}

/* ---- while starting ------------------------------------------------------------------------ */

enum { EXTEND_EVERY_S = 10 };

struct start {
    uint64_t begin_ns;
    uint64_t told_ns; /* when the service manager was last told that it takes its time */
};

/* By a signal that waits for the loop. */
static bool stop_is_asked(void)
{
    sigset_t waiting;

    return sigpending(&waiting) == 0 &&
           (sigismember(&waiting, SIGTERM) == 1 || sigismember(&waiting, SIGINT) == 1);
}

/* What the store asks while it takes long. */
static bool start_goes_on(void *context)
{
    struct start *start = context;
    const uint64_t now_ns = clock_monotonic_ns();

    if (now_ns - start->told_ns >= EXTEND_EVERY_S * UINT64_C(1000000000)) {
        start->told_ns = now_ns;
        notify("EXTEND_TIMEOUT_USEC=60000000"); /* five may get lost */
    }
    return !stop_is_asked();
}

/* The exit status of a start that cannot go on: what it was told to do is no failure. */
static int end_start(int status, const char *why)
{
    if (!stop_is_asked()) {
        complain("%s", why);
        return status;
    }
    log_info("told to stop - the start is given up%s%s", *why == '\0' ? "" : ": ", why);
    return EXIT_SUCCESS;
}

/* ---- the sandbox --------------------------------------------------------------------------- */

static void report_wall(const char *what, int result)
{
    if (result == 0)
        log_debug("sandbox: %s are restricted", what);
    else
        log_warning("sandbox: %s cannot be restricted: %s", what, strerror(-result));
}

/* Before the first thread: files, and what root might do. */
static void wall_in_files(const struct config *config)
{
    const struct config_ssl *ssl = &config->ssl_options;
    const char *const writable[] = {config->data_dir, "/dev/null", NULL};
    const char *const readable[] = {
        "/proc", "/sys/fs/cgroup", "/dev/urandom", "/etc/ssl",      "/usr/lib",
        "/lib",  ssl->certfile,    ssl->keyfile,   ssl->cacertfile, NULL,
    };
    if (!config->sandbox)
        log_warning("the sandbox is off (sandbox): the process may do whatever its user may");
    if (config->sandbox && SANDBOX_FITS) {
        if (geteuid() == 0)
            report_wall("root's capabilities", privileges_shed());
        report_wall("files", sandbox_files(writable, readable));
    }
}

/* Once everything is open. */
static void wall_in_calls(const struct config *config)
{
    if (config->sandbox && SANDBOX_FITS)
        report_wall("system calls", sandbox_calls());
}

/* ---- serving ------------------------------------------------------------------------------- */

/* From the first listener to the last commit. Returns the exit status. */
static int run(const struct config *config, struct server *server, struct signals *signals,
               const struct start *start)
{
    char error[SERVER_ERROR_SIZE];
    if (stop_is_asked())
        return end_start(EXIT_SUCCESS, "");
    signals->server = server;
    int result = loop_watch(server_loop(server), &signals->source);
    if (result < 0) {
        complain("cannot watch for signals: %s", strerror(-result));
        return EX_OSERR;
    }
    result = server_listen(server, error);
    if (result != 0) {
        complain("%s", error);
        loop_unwatch(server_loop(server), &signals->source);
        return result;
    }
    wall_in_calls(config);
    log_info("Server startup complete; ready in %.1f ms",
             (double)(clock_monotonic_ns() - start->begin_ns) / 1e6);
    notify("READY=1");
    loop_run(server_loop(server));
    loop_unwatch(server_loop(server), &signals->source);
    return EXIT_SUCCESS;
}

static int serve_store(const struct config *config, struct signals *signals, struct store **store,
                       const struct start *start)
{
    struct clock clock = {0};
    struct random random;
    clock_update(&clock);
    random_init(&random);
    slice_hash_seed(random_u64(&random));

    char error[SERVER_ERROR_SIZE];
    struct server *server = server_new(config, &clock, &random, store, error);
    if (server == NULL) {
        if (*store != NULL)
            store_close(store);
        return end_start(EX_IOERR, error);
    }
    const int status = run(config, server, signals, start);
    const int server_status = server_free(&server);
    return status != EXIT_SUCCESS ? status : server_status;
}

/* Why the data directory, or what is in it, cannot be used: where access is denied, with what to
 * do. */
static const char *explain(const struct config *config, int result, const char *sentence,
                           char advice[PRIVILEGES_ERROR_SIZE])
{
    if (result != -EACCES)
        return sentence;
    privileges_explain(config->data_dir, EACCES, advice);
    return advice;
}

/* With the data directory ours. */
static int serve_data(const struct config *config, struct signals *signals, uint64_t begin_ns)
{
    char error[STORE_ERROR_SIZE] = "", advice[PRIVILEGES_ERROR_SIZE];
    struct store *store;
    struct start start = {.begin_ns = begin_ns, .told_ns = begin_ns};
    const struct store_options options = {
        .directory = config->data_dir,
        .waiting = {.goes_on = start_goes_on, .context = &start},
    };
    const int result = store_open(&options, &store, error);
    if (result < 0)
        return end_start(result == -ESTALE ? EX_NOINPUT : EX_IOERR,
                         explain(config, result, error, advice));
    return serve_store(config, signals, &store, &start);
}

static bool become_user(const struct config *config)
{
    char error[PRIVILEGES_ERROR_SIZE];

    if (config->user[0] == '\0' || privileges_become(config->user, config->data_dir, error) == 0)
        return true;
    complain("%s", error);
    return false;
}

/* With the process prepared. */
static int serve_user(const struct config *config, struct signals *signals, uint64_t begin_ns)
{
    char error[DATA_DIR_ERROR_SIZE], advice[PRIVILEGES_ERROR_SIZE];
    if (!become_user(config))
        return EX_CONFIG;
    if (geteuid() == 0)
        log_warning(
            "running as root, for which a broker has no use: whoever takes over the process "
            "has root's files. Name another user with the key user, or start it as one");
    int lock_fd = data_dir_check(config->data_dir, error);
    if (lock_fd == 0)
        lock_fd = data_dir_lock(config->data_dir, error);
    if (lock_fd < 0) {
        complain("%s", explain(config, lock_fd, error, advice));
        return EX_CANTCREAT;
    }
    wall_in_files(config);
    const int status = serve_data(config, signals, begin_ns);
    close(lock_fd);
    return status;
}

static int serve(const struct config *config, uint64_t begin_ns)
{
    struct signals signals;
    const int result = signals_open(&signals);
    if (result < 0) {
        complain("cannot open a descriptor for signals: %s", strerror(-result));
        return EX_OSERR;
    }
    log_info("Starting StoatMQ " STOATMQ_VERSION ", pid %ld, data directory %s", (long)getpid(),
             config->data_dir);
    const int status = serve_user(config, &signals, begin_ns);
    close(signals.source.fd);
    if (status == EXIT_SUCCESS)
        log_info("StoatMQ has stopped");
    return status;
}

int main(int argc, char **argv)
{
    const uint64_t begin_ns = clock_monotonic_ns();
    struct options options;
    log_look_for_journal(getenv("JOURNAL_STREAM"));
    int status = options_parse(&options, argc, argv);
    if (status < 0) {
        struct config config;
        config_init(&config);
        if (!read_config(&config, &options)) {
            status = EX_CONFIG;
        } else if (options.check_config) {
            status = report_valid(&config);
        } else {
            prepare_process(&config);
            status = serve(&config, begin_ns);
        }
        config_release(&config);
    }
    options_release(&options);
    return status;
}
