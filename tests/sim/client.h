/* A random client: it says what clients say, in pieces cut anywhere, reads what comes when it feels
 * like it, and checks all of it.
 *
 * Its operations wait in `sent` until the broker has acted on their last frame. The client learns
 * of that by standing between transport and connection (client_events): it hands the connection one
 * frame at a time and then lets the model follow. So the model sees the operations of all clients
 * in the broker's own order, and knows before the client does what an answer must say.
 *
 *     act ──▶ out ──(flush, any piece)──▶ transport ──▶ one frame ──▶ connection
 *      op ──▶ sent ─────────────────────────────────────▶ model ──▶ channel->awaiting ──▶ reply read and
 * checked */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

#include "tests/lib/harness.h"
#include "tests/sim/model.h"

enum { CLIENT_CHANNELS = 3 };

struct op;
STAILQ_HEAD(op_list, op);

struct taker { /* a consumer, as its client and the model know it */
    TAILQ_ENTRY(taker) link;
    char tag[MODEL_NAME];
    struct model_queue *queue; /* once the broker has it */
    bool no_ack, exclusive;
    uint16_t prefetch;
    bool active;       /* the broker has it, still */
    bool over;         /* its client has read that it ended: nothing may come any more */
    uint32_t unacked;  /* as far as its client has read */
    uint64_t next_new; /* entries not redelivered come in order: at least this one */
};
TAILQ_HEAD(taker_list, taker);

enum settle_how { SETTLE_BY_ACK, SETTLE_BY_DROP, SETTLE_BY_REQUEUE };

struct unacked {
    uint64_t tag;
    uint32_t id;
    struct model_queue *queue;
    struct taker *taker;        /* NULL: basic.get */
    bool read_while_recovering; /* the broker had taken it back by then */
    bool settling;              /* its client has said what becomes of it */
    bool held;                  /* and the broker knows, but waits for tx.commit */
    enum settle_how how;        /* when held */
};

struct confirmable {
    uint32_t id;
    bool confirmed;
};

enum channel_mode { MODE_PLAIN, MODE_CONFIRM, MODE_TX };

struct sim_channel {
    /* as its client has it */
    enum { CHANNEL_FREE, CHANNEL_USED, CHANNEL_ENDING } use;
    enum channel_mode mode;
    uint16_t prefetch, global_prefetch;
    unsigned recovering; /* basic.recover under way: tags read before the last answer are void */
    unsigned next_tag;
    uint64_t last_tag; /* of a delivery */
    struct op_list awaiting;
    struct taker_list takers;
    struct buf unacked;   /* of struct unacked */
    struct buf published; /* of struct confirmable */
    /* as the broker has it */
    bool live;
    uint64_t publishes;
    struct buf held; /* ids of publishes in the transaction */
};

struct client {
    TAILQ_ENTRY(client) link;
    struct sim *sim;
    unsigned serial;
    struct peer *peer;
    struct buf out;      /* not yet given to the transport */
    struct op_list sent; /* not yet acted on by the broker */
    size_t sent_count;
    uint32_t frame_size_max;
    bool open, closing; /* it may act; it has said close, or was told to */
    bool ended;         /* the broker's side of it, channels and all */
    bool broken;        /* by itself */
    bool slow;          /* it has not been reading since */
    struct sim_channel channels[CLIENT_CHANNELS];
    /* the content being read */
    struct amqp_method content;
    uint16_t content_channel;
    char content_tag[MODEL_NAME], content_exchange[MODEL_NAME], content_key[MODEL_NAME];
    bool has_header;
    uint64_t body_size;
    struct buf properties, body;
};
TAILQ_HEAD(client_list, client);

struct sim {
    struct random random;
    struct harness harness;
    struct model model;
    struct client_list clients;
    unsigned next_serial;
    bool ending;          /* the broker is being stopped: nothing is followed */
    uint64_t acts, reads; /* what was done in all */
    uint64_t confirmed, delivered, returned, refused;
};

uint64_t below(struct sim *sim, uint64_t bound);
bool chance(struct sim *sim, unsigned percent);

void client_connect(struct sim *sim);
void client_act(struct client *client);                /* one operation, encoded */
void client_flush(struct client *client, size_t size); /* gives at most so many bytes */
void client_read(struct client *client);               /* all that has come */
void client_break(struct client *client,
                  bool orderly);          /* ends its stream, by end of file or reset */
void client_close(struct client *client); /* says connection.close */
void client_free(struct client **client); /* its socket is closed, or its broker gone */

/* The broker has nothing left to do, and the client has read all: everything was answered and
 * confirmed. */
void client_check_idle(struct client *client);

/* Everything ready has found someone to take it, and what is unacked is what clients have. */
void clients_check_queues(struct sim *sim);

/* For the model. */
void clients_on_queue_deleted(struct sim *sim, const struct model_queue *queue);
/* The broker stops: no client lives on. */
void client_end(struct client *client);

#endif
