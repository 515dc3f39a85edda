/* Whose turn it is among connections that have spent more than their turn's steps (broker_spend).
 *
 *     overspends ─▶ rests ─▶ rests ─▶ rests        who has rested longest is first
 *         ▲           │
 *         └───────────┴─ its turn, while this turn of the loop has steps left
 *
 * Who overspends is a spender until it has not for a minute: its input is looked at while the turn
 * has steps left and nobody rests, else it rests behind the others. Who rests first has all of a
 * turn's steps, whatever others have spent before in this one; who has what the one before it left,
 * and overspends that, rests first from then on. So of N that always have more each gets one whole
 * turn in N, and a turn of the loop is as long as the steps of two and one frame, however many they
 * are. (And one frame more for each that nobody knows as a spender yet: what a frame costs is known
 * afterwards. Dead letters have a budget of their own: core/dead_letter.h.) Whoever spends nothing is
 * looked at in every turn. */
#ifndef SESSION_SPENDERS_H
#define SESSION_SPENDERS_H

#include "net/loop.h"

struct broker;

struct spender {
    TAILQ_ENTRY(spender) link; /* in spenders->resting, while it rests */
    bool rests;
    void (*on_turn)(struct spender *spender); /* in the INPUT phase; it rests no more */
};

struct spenders {
    struct broker *broker;
    TAILQ_HEAD(spender_list, spender) resting; /* the longest first */
    struct task task;                          /* queued while anybody rests */
    bool begun; /* the turn that somebody has now has been another's before */
};

void spenders_init(struct spenders *spenders, struct broker *broker);
void spenders_release(struct spenders *spenders); /* nobody rests */

/* Rests from now on; its turn comes after those of the others, unless what it has had was less than
 * one. */
void spenders_rest(struct spenders *spenders, struct spender *spender);
void spenders_remove(struct spenders *spenders, struct spender *spender); /* harmless otherwise */

/* A spender has input: others are before it, or nobody's turn comes any more in this one. */
bool spenders_must_wait(const struct spenders *spenders);

#endif
