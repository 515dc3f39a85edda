/* Rows and columns as text.
 *
 *     table         tab separated, a line a row
 *     pretty_table  framed, columns aligned
 *     csv           RFC 4180, with lines that end as Unix lines do
 *     json          an array of objects
 *
 * A name may hold any character. In the tables, tabs, line ends and other control characters, which
 * would break the table or steer the terminal, appear as \t, \n, \r and \xNN. */
#include <wchar.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "tools/stoatctl.h"

struct table {
    const struct options *options;
    const char *const *columns;
    size_t column_count;
    json_t *rows;
};

static void append_string(struct buf *out, const char *text)
{
    buf_append(out, slice_of_string(text));
}

/* A value as one would write it by hand. */
static void append_value(struct buf *out, const json_t *value)
{
    if (json_is_string(value)) {
        buf_append(out, slice_of(json_string_value(value), json_string_length(value)));
    } else if (json_is_object(value) && json_object_size(value) == 0) {
        append_string(out, "[]");
    } else if (!json_is_null(value)) {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
        append_string(out, text);
        free(text);
    }
}

/* C1 controls are two octets in UTF-8. */
static bool is_c1(struct slice text, size_t at)
{
    return text.data[at] == 0xc2 && at + 1 < text.size && text.data[at + 1] >= 0x80 &&
           text.data[at + 1] < 0xa0;
}

static void append_escaped(struct buf *out, struct slice text)
{
    for (size_t at = 0; at < text.size; at++) {
        const uint8_t c = text.data[at];
        if (c == '\t')
            append_string(out, "\\t");
        else if (c == '\n')
            append_string(out, "\\n");
        else if (c == '\r')
            append_string(out, "\\r");
        else if (is_c1(text, at))
            buf_printf(out, "\\x%02x", text.data[++at]);
        else if (c < ' ' || c == 0x7f)
            buf_printf(out, "\\x%02x", c);
        else
            buf_append(out, slice_of(&c, 1));
    }
}

/* The cell as text; to be freed. */
static char *cell_text(const json_t *value, void (*append)(struct buf *, struct slice))
{
    struct buf raw = BUF_EMPTY, out = BUF_EMPTY;

    append_value(&raw, value);
    append(&out, buf_slice(&raw));
    char *text = slice_to_string(buf_slice(&out));
    buf_release(&raw);
    buf_release(&out);
    return text;
}

/* ---- the order of rows: by cells from left to right, numbers as numbers ---- */

static int compare_values(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b)) {
        const double x = json_number_value(a), y = json_number_value(b);
        return (x > y) - (x < y);
    }
    if (json_is_string(a) && json_is_string(b))
        return strcmp(json_string_value(a), json_string_value(b));
    return (int)json_typeof(a) - (int)json_typeof(b);
}

static int compare_rows(const void *a, const void *b)
{
    const json_t *const *x = a, *const *y = b;
    int order = 0;

    for (size_t i = 0; i < json_array_size(*x) && order == 0; i++)
        order = compare_values(json_array_get(*x, i), json_array_get(*y, i));
    return order;
}

static void sort(json_t *rows)
{
    const size_t count = json_array_size(rows);
    json_t **sorted = xcalloc(count + 1, sizeof(json_t *));

    for (size_t i = 0; i < count; i++)
        sorted[i] = json_incref(json_array_get(rows, i));
    qsort(sorted, count, sizeof(*sorted), compare_rows);
    json_array_clear(rows);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(rows, sorted[i]);
    free(sorted);
}

/* ---- table, csv ---- */

static void append_csv(struct buf *out, struct slice text)
{
    bool quoted = false;

    for (size_t i = 0; i < text.size; i++)
        quoted |= memchr(",\"\r\n", text.data[i], 4) != NULL;
    if (!quoted) {
        buf_append(out, text);
        return;
    }
    append_string(out, "\"");
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '"')
            append_string(out, "\"");
        buf_append(out, slice_of(&text.data[i], 1));
    }
    append_string(out, "\"");
}

static void print_lines(const struct table *table, char separator,
                        void (*append)(struct buf *, struct slice))
{
    for (size_t i = 0; i < table->column_count && !table->options->no_headers; i++)
        printf("%s%c", table->columns[i], i + 1 < table->column_count ? separator : '\n');
    for (size_t row = 0; row < json_array_size(table->rows); row++) {
        for (size_t i = 0; i < table->column_count; i++) {
            char *text = cell_text(json_array_get(json_array_get(table->rows, row), i), append);
            printf("%s%c", text, i + 1 < table->column_count ? separator : '\n');
            free(text);
        }
    }
}

/* ---- pretty_table ---- */

/* Columns of the terminal. */
static size_t width_of(const char *text)
{
    mbstate_t state = {0};
    size_t width = 0;
    wchar_t c;

    for (size_t left = strlen(text), size; left > 0; text += size, left -= size) {
        size = mbrtowc(&c, text, left, &state);
        if (size == 0 || size > left)
            return width + left;
        width += (size_t)max_of(wcwidth(c), 0);
    }
    return width;
}

static void print_rule(const size_t *widths, size_t count, const char *const marks[3])
{
    for (size_t i = 0; i < count; i++) {
        fputs(i == 0 ? marks[0] : marks[1], stdout);
        for (size_t at = 0; at < widths[i] + 2; at++)
            fputs("─", stdout);
    }
    puts(marks[2]);
}

static void print_cells(const size_t *widths, size_t count, const char *const *cells)
{
    for (size_t i = 0; i < count; i++)
        printf("│ %s%*s ", cells[i], (int)(widths[i] - width_of(cells[i])), "");
    puts("│");
}

static void print_pretty(const struct table *table)
{
    static const char *const top[] = {"┌", "┬", "┐"}, *const middle[] = {"├", "┼", "┤"},
                             *const bottom[] = {"└", "┴", "┘"};
    const size_t row_count = json_array_size(table->rows), count = table->column_count;
    char **cells = xcalloc(row_count * count + 1, sizeof(char *));
    size_t *widths = xcalloc(count, sizeof(size_t));

    for (size_t i = 0; i < count; i++)
        widths[i] = table->options->no_headers ? 0 : width_of(table->columns[i]);
    for (size_t i = 0; i < row_count * count; i++) {
        const json_t *row = json_array_get(table->rows, i / count);
        cells[i] = cell_text(json_array_get(row, i % count), append_escaped);
        widths[i % count] = max_of(widths[i % count], width_of(cells[i]));
    }
    print_rule(widths, count, top);
    if (!table->options->no_headers) {
        print_cells(widths, count, table->columns);
        print_rule(widths, count, middle);
    }
    for (size_t row = 0; row < row_count; row++)
        print_cells(widths, count, (const char *const *)&cells[row * count]);
    print_rule(widths, count, bottom);
    for (size_t i = 0; i < row_count * count; i++)
        free(cells[i]);
    free(cells);
    free(widths);
}

/* ---- json ---- */

static void print_json(const struct table *table)
{
    json_t *list = json_array();

    for (size_t row = 0; row < json_array_size(table->rows); row++) {
        json_t *object = json_object();
        for (size_t i = 0; i < table->column_count; i++)
            json_object_set(object, table->columns[i],
                            json_array_get(json_array_get(table->rows, row), i));
        json_array_append_new(list, object);
    }
    json_dumpf(list, stdout, JSON_COMPACT | JSON_REAL_PRECISION(15));
    putchar('\n');
    json_decref(list);
}

void table_print(const struct options *options, const char *const *columns, size_t column_count,
                 json_t *rows)
{
    const struct table table = {options, columns, column_count, rows};

    sort(rows);
    switch (options->format) {
    case FORMAT_TABLE:
        print_lines(&table, '\t', append_escaped);
        break;
    case FORMAT_PRETTY_TABLE:
        print_pretty(&table);
        break;
    case FORMAT_CSV:
        print_lines(&table, ',', append_csv);
        break;
    case FORMAT_JSON:
        print_json(&table);
        break;
    }
}
