/* Runs every file of a corpus through the target that is linked here, and a few inputs that every
 * target must bear. One test a file, in the Test Anything Protocol.
 *
 *     replay DIRECTORY */
#include <dirent.h>

#include "base/alloc.h"
#include "tests/fuzz/fuzz.h"

static int is_input(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = NULL;
    size_t room = 0;

    *size = 0;
    if (file == NULL)
        return NULL;
    for (size_t got = 1; got > 0; *size += got) {
        if (*size == room)
            bytes = xrealloc(bytes, room += 65536, 1);
        got = fread(bytes + *size, 1, room - *size, file);
    }
    const bool failed = ferror(file) != 0;
    fclose(file);
    if (!failed)
        return bytes;
    free(bytes);
    return NULL;
}

/* From a block of its exact size: a byte read behind it is seen by the sanitizers. */
static void run(const uint8_t *bytes, size_t size)
{
    uint8_t *exact = xmalloc(max_of(size, (size_t)1));

    if (size > 0)
        memcpy(exact, bytes, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static void run_plain_inputs(void)
{
    static const uint8_t fills[] = {0x00, 0x01, 0x7F, 0x80, 0xCE, 0xFF};
    uint8_t bytes[300];

    run(NULL, 0);
    for (size_t i = 0; i < countof(fills); i++) {
        memset(bytes, fills[i], sizeof(bytes));
        for (size_t size = 1; size <= sizeof(bytes); size = size * 3 / 2 + 1)
            run(bytes, size);
    }
}

int main(int argc, char **argv)
{
    struct dirent **entries;
    const int count = argc == 2 ? scandir(argv[1], &entries, is_input, alphasort) : -1;

    if (count <= 0) {
        fprintf(stderr, "replay: %s\n", argc == 2 ? "no corpus there" : "a directory is expected");
        return 2;
    }
    printf("TAP version 13\n1..%d\n", count + 1);
    run_plain_inputs();
    printf("ok 1 - plain inputs\n");
    for (int i = 0; i < count; i++) {
        char *path = xasprintf("%s/%s", argv[1], entries[i]->d_name);
        size_t size;
        uint8_t *bytes = read_file(path, &size);
        if (bytes != NULL)
            run(bytes, size);
        printf("%s %d - %s\n", bytes == NULL ? "not ok" : "ok", i + 2, entries[i]->d_name);
        fflush(stdout);
        free(bytes);
        free(path);
        free(entries[i]);
    }
    free(entries);
    return 0;
}
