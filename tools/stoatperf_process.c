/* See the header. A file that cannot be read leaves its fields zero; without stat nothing is
 * known. */
#include "tools/stoatperf_process.h"

#include <dirent.h>
#include <unistd.h>

/* The file's content, cut to size - 1 octets and NUL-terminated. */
static bool read_text(const char *path, char *text, size_t size)
{
    FILE *const file = fopen(path, "re");
    if (file == NULL)
        return false;
    const size_t got = fread(text, 1, size - 1, file);
    fclose(file);
    text[got] = '\0';
    return got > 0;
}

static void read_stat(struct process_usage *usage, int32_t pid)
{
    char path[64], text[1024];
    unsigned long user, system;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    if (!read_text(path, text, sizeof(text)))
        return;
    /* The second field is the name in parentheses, and may hold anything. */
    const char *const name_end = strrchr(text, ')');
    if (name_end == NULL ||
        sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
               &system) != 2)
        return;
    const double tick_s = 1.0 / (double)sysconf(_SC_CLK_TCK);
    usage->user_s = (double)user * tick_s;
    usage->system_s = (double)system * tick_s;
    usage->known = true;
}

static void read_threads(struct process_usage *usage, int32_t pid)
{
    char path[320], text[128];
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *const tasks = opendir(path);
    if (tasks == NULL)
        return;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        uint64_t run_ns, slices;
        snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pid, task->d_name);
        if (task->d_name[0] != '.' && read_text(path, text, sizeof(text)) &&
            sscanf(text, "%" SCNu64 " %*u %" SCNu64, &run_ns, &slices) == 2) {
            usage->cpu_s += (double)run_ns / 1e9;
            usage->slices += slices;
        }
    }
    closedir(tasks);
}

/* The number behind "key" at the start of a line, or 0. */
static uint64_t number_behind(const char *text, const char *key)
{
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, strlen(key)) == 0)
            return strtoull(line + strlen(key), NULL, 10);
    }
    return 0;
}

void process_usage_of(struct process_usage *usage, int32_t pid)
{
    char path[64], text[4096];
    *usage = (struct process_usage){0};
    if (pid == 0)
        return;
    read_stat(usage, pid);
    read_threads(usage, pid);
    usage->cpu_s = max_of(usage->cpu_s, usage->user_s + usage->system_s);

    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    if (read_text(path, text, sizeof(text))) {
        usage->resident = number_behind(text, "VmRSS:") * 1024;
        usage->resident_most = number_behind(text, "VmHWM:") * 1024;
    }
    snprintf(path, sizeof(path), "/proc/%d/io", pid);
    if (read_text(path, text, sizeof(text)))
        usage->written = number_behind(text, "write_bytes:");
}

void process_usage_of_self(struct process_usage *usage)
{
    process_usage_of(usage, getpid());
}

void process_usage_since(struct process_usage *usage, const struct process_usage *now)
{
    const struct process_usage before = *usage;
    *usage = *now;
    usage->known = before.known && now->known;
    usage->cpu_s -= before.cpu_s;
    usage->user_s -= before.user_s;
    usage->system_s -= before.system_s;
    usage->slices -= before.slices;
    usage->written -= before.written;
}
