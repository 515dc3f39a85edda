#include "base/turns.h"

void turns_init(struct turns *turns)
{
    TAILQ_INIT(&turns->lines);
}

void turn_line_init(struct turn_line *line)
{
    *line = (struct turn_line){0};
    TAILQ_INIT(&line->waiting);
}

static bool takes_part(const struct turn_line *line)
{
    return line->count > 0 && !line->is_held;
}

/* Before anything by which a line begins to take part, or ends. */
static void leave(struct turns *turns, struct turn_line *line)
{
    if (takes_part(line))
        TAILQ_REMOVE(&turns->lines, line, link);
}

static void enter(struct turns *turns, struct turn_line *line)
{
    if (takes_part(line))
        TAILQ_INSERT_TAIL(&turns->lines, line, link);
}

static void count_one(struct turns *turns, struct turn_line *line, struct turn *turn)
{
    turn->line = line;
    if (line->count++ == 0)
        enter(turns, line);
}

void turn_wait(struct turns *turns, struct turn_line *line, struct turn *turn)
{
    assert(turn->line == NULL);
    TAILQ_INSERT_TAIL(&line->waiting, turn, link);
    count_one(turns, line, turn);
}

void turn_wait_first(struct turns *turns, struct turn_line *line, struct turn *turn)
{
    assert(turn->line == NULL);
    TAILQ_INSERT_HEAD(&line->waiting, turn, link);
    count_one(turns, line, turn);
}

void turn_cancel(struct turns *turns, struct turn *turn)
{
    struct turn_line *line = turn->line;

    assert(line != NULL && line->count > 0);
    if (line->count == 1)
        leave(turns, line);
    TAILQ_REMOVE(&line->waiting, turn, link);
    line->count--;
    turn->line = NULL;
}

struct turn *turns_take(struct turns *turns)
{
    struct turn_line *line = TAILQ_FIRST(&turns->lines);

    if (line == NULL)
        return NULL;
    struct turn *turn = TAILQ_FIRST(&line->waiting);
    turn_cancel(turns, turn);
    leave(turns, line);
    enter(turns, line);
    return turn;
}

void turn_line_hold(struct turns *turns, struct turn_line *line)
{
    assert(!line->is_held);
    leave(turns, line);
    line->is_held = true;
}

void turn_line_let_go(struct turns *turns, struct turn_line *line)
{
    assert(line->is_held);
    line->is_held = false;
    enter(turns, line);
}
