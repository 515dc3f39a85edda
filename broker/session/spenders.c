/* See spenders.h. */
#include "session/spenders.h"

#include "core/broker.h"

static void on_turn(struct task *task)
{
    struct spenders *spenders = container_of(task, struct spenders, task);
    struct spender *spender;

    broker_renew_steps(spenders->broker);
    while (!broker_turn_is_spent(spenders->broker) &&
           (spender = TAILQ_FIRST(&spenders->resting)) != NULL) {
        spenders_remove(spenders, spender);
        spenders->begun = spenders->broker->steps > 0;
        spender->on_turn(spender);
    }
    spenders->begun = false;
    if (!TAILQ_EMPTY(&spenders->resting))
        loop_queue(spenders->broker->loop, LOOP_INPUT, task);
}

void spenders_init(struct spenders *spenders, struct broker *broker)
{
    *spenders = (struct spenders){.broker = broker, .task.run = on_turn};
    TAILQ_INIT(&spenders->resting);
}

void spenders_release(struct spenders *spenders)
{
    assert(TAILQ_EMPTY(&spenders->resting));
    loop_unqueue(spenders->broker->loop, &spenders->task);
}

void spenders_rest(struct spenders *spenders, struct spender *spender)
{
    assert(!spender->rests);
    spender->rests = true;
    if (spenders->begun)
        TAILQ_INSERT_HEAD(&spenders->resting, spender, link);
    else
        TAILQ_INSERT_TAIL(&spenders->resting, spender, link);
    loop_queue(spenders->broker->loop, LOOP_INPUT, &spenders->task);
}

void spenders_remove(struct spenders *spenders, struct spender *spender)
{
    if (!spender->rests)
        return;
    spender->rests = false;
    TAILQ_REMOVE(&spenders->resting, spender, link);
}

bool spenders_must_wait(const struct spenders *spenders)
{
    return !TAILQ_EMPTY(&spenders->resting) || broker_turn_is_spent(spenders->broker);
}
