/* Responses to a login: what is found lies inside the response, and no error text has any of it. */
#include "amqp/sasl.h"
#include "tests/fuzz/fuzz.h"

static void check(struct slice response, bool found, struct slice user, struct slice password,
                  const struct amqp_error *error)
{
    const uint8_t *const end = response.data + response.size;

    if (!found) {
        must(error->code == AMQP_SYNTAX_ERROR);
        return;
    }
    must(user.size == 0 || (user.data >= response.data && user.data + user.size <= end));
    must(password.size == 0 ||
         (password.data >= response.data && password.data + password.size <= end));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct slice response = slice_of(data, size);
    struct slice user = {0}, password = {0};
    struct amqp_error error = {0};

    check(response, amqp_sasl_plain(response, &user, &password, &error), user, password, &error);
    error = (struct amqp_error){0};
    check(response, amqp_sasl_amqplain(response, &user, &password, &error), user, password, &error);
    return 0;
}
