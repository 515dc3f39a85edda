/* What a broker sends, taken apart at the price of a few loads per message. A stream is fed the
 * input in pieces of any size and tells its owner of deliveries, confirms and all other methods.
 * Bodies are skipped: of each only the first STREAM_STAMP_SIZE octets are looked at.
 *
 *     body of a message:  sent_ns 64 | id 64 | padding        (absent when the body is shorter)
 *
 * A delivery whose three frames are all there takes the fast path; everything else, and every frame
 * that is not what the fast path expects, goes frame by frame:
 *
 *     METHOD -- deliver, return --> HEADER -- body size > 0 --> BODY -- last octet --> METHOD
 *                                      `------ body size 0 --------------------------> METHOD
 *
 * A method or header frame that the input cuts is left to the caller, who gives it again with what
 * follows; of a body frame at most its head and the stamp are left. */
#ifndef TOOLS_STOATPERF_STREAM_H
#define TOOLS_STOATPERF_STREAM_H

#include "amqp/method.h"

enum { STREAM_STAMP_SIZE = 16 };

struct delivery {
    uint32_t queue; /* the number that the consumer tag is */
    bool redelivered;
    uint64_t delivery_tag;
    uint64_t sent_ns, id; /* both 0 when the body is too short for them */
};

struct stream_events {
    /* The last octet of a message has come. */
    void (*on_delivery)(void *owner, const struct delivery *delivery);
    /* basic.ack, or basic.nack when not positive, from the broker. False ends the stream. */
    bool (*on_confirm)(void *owner, uint64_t delivery_tag, bool multiple, bool positive);
    /* Any other method. False ends the stream. */
    bool (*on_method)(void *owner, const struct amqp_method *method);
};

enum stream_state { STREAM_METHOD, STREAM_HEADER, STREAM_BODY };

struct stream {
    const struct stream_events
        *events; /* static; on_delivery and on_confirm may be NULL: such methods are refused */
    void *owner;
    enum stream_state state;
    bool is_delivery;         /* of the content being read: it is reported when complete */
    bool is_stamped;          /* the first body frame has been seen */
    uint64_t body_left;       /* in STREAM_BODY: octets in frames not yet begun */
    uint64_t skip;            /* octets of the body frame begun, its end octet included */
    struct delivery delivery; /* being read */
};

void stream_init(struct stream *stream, const struct stream_events *events, void *owner);

enum stream_result { STREAM_OK, STREAM_ENDED, STREAM_BAD };

/* Reads as far as it can; *used says how far. ENDED: the owner said so. BAD: *error says what is
 * wrong. */
enum stream_result stream_feed(struct stream *stream, struct slice input, uint32_t frame_max,
                               size_t *used, struct amqp_error *error);

#endif
