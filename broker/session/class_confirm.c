/* Class confirm: the channel's publishes are acknowledged from here on (9.9). */
#include "session/dispatch.h"

bool on_confirm_select(struct channel *channel, const struct amqp_method *method,
                       struct amqp_error *error)
{
    (void)error;
    if (channel->confirms == NULL)
        channel->confirms = confirms_new(channel);
    if (!method->confirm_select.no_wait)
        channel_send(channel, &(struct amqp_method){.id = AMQP_CONFIRM_SELECT_OK});
    return true;
}
