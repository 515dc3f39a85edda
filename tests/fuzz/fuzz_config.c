/* The configuration file and --set: any text is read, or refused with a sentence. */
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "config.h"
#include "tests/fuzz/fuzz.h"

static void read_as_file(struct slice text)
{
    struct config config;
    char error[CONFIG_ERROR_SIZE] = "", path[64];
    const int fd = memfd_create("config", MFD_CLOEXEC);

    must(fd >= 0 && write(fd, text.data, text.size) == (ssize_t)text.size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    config_init(&config);
    const bool read = config_read_file(&config, path, error) && config_check(&config, error);
    must(read == (error[0] == '\0'));
    config_release(&config);
    close(fd);
}

static void read_as_assignment(struct slice text)
{
    struct config config;
    char error[CONFIG_ERROR_SIZE] = "";
    char *assignment = slice_to_string(text);

    config_init(&config);
    must(config_set(&config, assignment, error) == (error[0] == '\0'));
    config_release(&config);
    free(assignment);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_as_file(slice_of(data, size));
    read_as_assignment(slice_of(data, size));
    return 0;
}
