/* Turns at something scarce, shared fairly: whoever wants one waits in the line of those it belongs
 * with, and the lines take turns, one each.
 *
 *     turns ─▶ line ──▶ line ──▶ line        the one whose turn is next first
 *               │        │        │
 *              turn     turn     turn        within a line the oldest first
 *               │
 *              turn                    line, held: its own wait, and it is passed over
 *
 * So one that comes to a line where nobody waits has at most a turn of each other line before its
 * own, however long those are. Nothing here costs more when lines are long.
 *
 * Everything is embedded in its owner's; who frees one that waits cancels it before. A line that is
 * all zero but for turn_line_init is empty and not held. */
#ifndef BASE_TURNS_H
#define BASE_TURNS_H

#include "base/base.h"

struct turn_line;

struct turn {
    TAILQ_ENTRY(turn) link;
    struct turn_line *line; /* where it waits; NULL: it does not */
};
TAILQ_HEAD(turn_list, turn);

struct turn_line {
    TAILQ_ENTRY(turn_line) link; /* in turns->lines, while somebody waits and it is not held */
    struct turn_list waiting;
    uint32_t count; /* of those */
    bool is_held;
};
TAILQ_HEAD(turn_line_list, turn_line);

struct turns {
    struct turn_line_list lines;
};

void turns_init(struct turns *turns);
void turn_line_init(struct turn_line *line);

/* It waits behind the others of the line, or before them. */
void turn_wait(struct turns *turns, struct turn_line *line, struct turn *turn);
void turn_wait_first(struct turns *turns, struct turn_line *line, struct turn *turn);
void turn_cancel(struct turns *turns, struct turn *turn); /* it waits */

/* Whose turn it is: it waits no more, and its line is behind the other ones. NULL: nobody's. */
struct turn *turns_take(struct turns *turns);

/* A line that is held has no turns until it is let go, and is then behind the others. */
void turn_line_hold(struct turns *turns, struct turn_line *line);
void turn_line_let_go(struct turns *turns, struct turn_line *line);

#endif
