/* The keys of the configuration as rows of a table: for config.c, which sets values by it, and
 * config_tell.c, which tells them. */
#ifndef CONFIG_KEYS_H
#define CONFIG_KEYS_H

#include "base/base.h"

enum key_kind {
    KEY_STRING,  /* bounds are of its length */
    KEY_SECRET,  /* the same, and told to nobody */
    KEY_PATTERN, /* the same, and a regular expression */
    KEY_BOOL,    /* true, false; yes, no, on, off likewise */
    KEY_NUMBER,
    KEY_SIZE,   /* a number of bytes, with or without a unit */
    KEY_RATIO,  /* a decimal fraction; bounds are in thousandths */
    KEY_LEVEL,  /* of the log */
    KEY_VERIFY, /* this and the next two: one of the words of their kind */
    KEY_LOGIN_FROM,
    KEY_SAN_TYPE,
    KEY_LISTENER,    /* a family: [ADDRESS:]PORT */
    KEY_PROPERTY,    /* a family: any text */
    KEY_TLS_VERSION, /* this and the next: families of the words of their kind */
    KEY_MECHANISM,
    KEY_NAME,          /* a family: true or false */
    KEY_VHOST_PATTERN, /* this and the next two: families, of struct config_vhost_limits */
    KEY_VHOST_CONNECTIONS,
    KEY_VHOST_QUEUES,
    KEY_NO_LISTENERS, /* "none" is all it may be */
    KEY_NO_LOOPBACK_USERS,
};

struct key {
    const char *name;
    enum key_kind kind;
    size_t offset, size; /* of the field; none for families */
    const char *initial; /* NULL: set by another row */
    uint64_t min, max;
    bool infinity; /* is what the field's 0 is called; 0 itself is refused */
};

extern const struct key config_keys[];
extern const size_t config_key_count;

/* By kind: the words of it, NULL behind the last. A field has their number. */
extern const char *const *const config_words[];

#endif
