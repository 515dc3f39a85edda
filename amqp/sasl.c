/* SASL responses. Errors name the mechanism and nothing of the response, which may hold a
 * password. */
#include "amqp/sasl.h"

#include "amqp/table.h"

/* Two NULs, the first in front: a response with an authorisation identity, or a NUL in the
 * password, has no meaning here. */
static bool split_plain(struct slice response, struct slice *user, struct slice *password)
{
    if (response.size == 0 || response.data[0] != 0)
        return false;
    const uint8_t *name = response.data + 1, *end = response.data + response.size;
    const uint8_t *nul = memchr(name, 0, (size_t)(end - name));
    if (nul == NULL || memchr(nul + 1, 0, (size_t)(end - nul - 1)) != NULL)
        return false;

    *user = slice_of(name, (size_t)(nul - name));
    *password = slice_of(nul + 1, (size_t)(end - nul - 1));
    return true;
}

bool amqp_sasl_plain(struct slice response, struct slice *user, struct slice *password,
                     struct amqp_error *error)
{
    return split_plain(response, user, password) ||
           amqp_fail(error, AMQP_SYNTAX_ERROR, "response of mechanism PLAIN invalid");
}

bool amqp_sasl_amqplain(struct slice response, struct slice *user, struct slice *password,
                        struct amqp_error *error)
{
    struct amqp_value login, secret;

    if (!amqp_table_check(response) || !amqp_table_find(response, SLICE("LOGIN"), &login) ||
        !amqp_table_find(response, SLICE("PASSWORD"), &secret) || login.type != AMQP_STRING ||
        secret.type != AMQP_STRING)
        return amqp_fail(error, AMQP_SYNTAX_ERROR, "response of mechanism AMQPLAIN invalid");
    *user = login.bytes;
    *password = secret.bytes;
    return true;
}
